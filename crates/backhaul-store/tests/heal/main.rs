//! Damage that is found, mended, and, where it cannot be mended, sent again.
#![allow(clippy::unwrap_used, reason = "tests")]

mod earlier;
mod edited;
mod foreign;
mod headless;
mod leftovers;
mod lost;
mod mended;
mod numbers;
mod open;
mod patches;
mod scene;
mod snapshots;
mod unreadable;
