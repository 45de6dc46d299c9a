//! What the server decides: who is due, who starts, who waits, who is nudged; as functions of (state, now).
//!
//! Pure: no clock, no randomness, no tasks. In reading order:
//! - [`policy`]: what an administrator writes down, read from TOML with every mistake named;
//! - [`due`]: when a client's next run may start under its policy, and how it stands;
//! - [`reach`]: what a client's contacts say about it, and the initiator they recommend;
//! - [`fleet`]: [`Fleet`], and its one function [`Fleet::step`]: events in, actions out;
//! - [`forecast`]: the same function run ahead: what will start when, and why;
//! - [`retention`]: which snapshots are kept, and why; [`brake`]: when nothing is forgotten, because a run changed too much;
//! - [`night`]: when the night's chores are due;
//! - [`rollout`]: how a new policy version reaches the clients, wave by wave.
//!
//! Invariants (tests/invariants holds them against random histories):
//! - at most one run per client, and never more new runs than slots: in all, per network group, per vault;
//! - no automatic start outside of a window, unless the client is late;
//! - after any absence exactly one run; an always-on client has one success a period;
//! - a free slot and an eligible client are never both left over after a step;
//! - waiting is bounded, and a ticket keeps its place;
//! - a nudge changes when, never whether;
//! - whoever is not started has an explanation;
//! - an event costs O(log clients), whatever it is, but for a jump of the clock and a new admission.

pub mod brake;
pub mod due;
pub mod fleet;
pub mod forecast;
pub mod night;
pub mod policy;
pub mod reach;
pub mod retention;
pub mod rollout;

pub use fleet::{Action, Event, Fleet};
pub use policy::Policy;

/// A moment, as the server's clocks see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Seconds since the machine started, sleep included: for waits, because it never jumps.
    pub boot: u64,
    /// Seconds since 1970: for periods and windows.
    pub wall: i64,
}
