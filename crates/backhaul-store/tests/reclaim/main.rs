//! Reclaim, beside everything else, against what must never be lost.
#![allow(clippy::unwrap_used, reason = "tests")]

mod basics;
mod beside;
mod cut;
mod kills;
mod opinion;
mod schedules;
mod world;
mod yard;
