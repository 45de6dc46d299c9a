//! The scheduler's promises, held against random histories and against made-up fleets.
//!
//! The numbers in the comments are those of the list of invariants that the design began with. [`world`] is a world
//! with its own books: it takes events, believes only what the actions say, and names each promise that was broken.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests")]

mod absence;
mod alerts;
mod asked;
mod audit;
mod calendar;
mod crowd;
mod dials;
mod enter;
mod foretold;
mod gone;
mod histories;
mod kept;
mod ops;
mod order;
mod pauses;
mod person;
mod sessions;
mod shape;
mod tickets;
mod world;
