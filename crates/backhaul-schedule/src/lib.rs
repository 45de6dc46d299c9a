//! What the server decides: who is due, who starts, who waits; as functions of (state, now).
//!
//! Pure: no clock, no randomness, no tasks. In reading order:
//! - [`policy`]: what an administrator writes down, read from TOML with every mistake named;
//! - [`due`]: when a client's next run may start under its policy;
//! - [`fleet`]: [`Fleet`], and its one function [`Fleet::step`]: events in, actions out.
//!
//! Invariants (tests/invariants.rs holds them against random histories):
//! - at most one run per client, and never more runs than slots;
//! - no automatic start outside of a window, unless the client is late;
//! - after any absence exactly one run; an always-on client has one success a period;
//! - a free slot and an eligible client are never both left over after a step;
//! - whoever is not started has an explanation.

pub mod due;
pub mod fleet;
pub mod policy;

pub use fleet::{Action, Event, Fleet};
pub use policy::Policy;

/// A moment, as the server's clocks see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Seconds since the machine started: for waits, because it never jumps.
    pub boot: u64,
    /// Seconds since 1970: for periods and windows.
    pub wall: i64,
}
