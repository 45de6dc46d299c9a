//! What users do, with the real binary, real sockets and real files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod enrol;
mod interrupt;
mod json;
mod pull_push;
mod quickstart;
mod reads;
mod restore;
mod schedule;
mod transcript;
mod trouble;
