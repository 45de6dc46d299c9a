//! A fleet in virtual time: the real scheduler ([`backhaul_schedule::Fleet::step`]) and the real agent's machine
//! ([`backhaul_agent::attend::Attendant`]); people, machines, networks and faults are modelled. In reading order:
//! - [`case`]: how large a fleet, for how long, with which faults;
//! - [`arm`]: the ways of scheduling that are compared;
//! - [`day`]: a machine's day: when it is awake, where, on which network;
//! - [`machine`]: one machine and what it is doing;
//! - [`agenda`]: what will happen; [`sim`]: events, comings and goings; [`talk`]: what agent and server say to each other; [`job`]: runs;
//! - [`server`]: the scheduler's side; [`mishap`]: on which days something breaks, [`fault`]: what and how;
//! - [`gauge`], [`tally`]: what is measured and counted; [`matrix`]: all arms and seeds; [`keep`]: what they came to, in a file; [`stats`], [`table`] and [`plot`]: what is made of it;
//! - [`check`]: a short run that must come out as promised.
//!
//! Everything follows from the seed: the same seed gives the same tables.

mod agenda;
pub mod arm;
pub mod case;
pub mod check;
pub mod clock;
pub mod day;
pub mod fault;
mod gauge;
pub mod job;
pub mod keep;
pub mod lot;
pub mod machine;
pub mod matrix;
pub mod mishap;
pub mod plot;
pub mod server;
pub mod sim;
pub mod stats;
pub mod table;
pub mod talk;
pub mod tally;
