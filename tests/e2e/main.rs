//! What users do, with the real binary, real sockets and real files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod alerts;
mod bad;
mod clocks;
mod compare;
mod copies;
mod elsewhere;
mod enrol;
mod farewell;
mod fidelity;
mod hostile;
mod install;
mod interrupt;
mod json;
mod keep;
mod laptops;
mod lies;
mod mad_servers;
mod mounts;
mod networks;
mod night;
mod orders;
mod peer;
mod prune;
mod pull_push;
mod quickstart;
mod reads;
mod recover;
mod restore;
mod schedule;
mod sources;
mod stills;
mod terms;
mod transcript;
mod trouble;
mod waves;
