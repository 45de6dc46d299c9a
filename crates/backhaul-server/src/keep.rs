//! What is kept, and for how long.
//!
//! - [`forget`]: retention, or snapshots that go by name: hidden at once, gone when their grace is over;
//! - [`marking`]: pins, and forgotten snapshots that are had back;
//! - [`braking`]: what holds all that for a client whose run changed too much.
//!
//! Nothing is removed here: that is `prune`'s ([`crate::chores::prune`]).

pub mod braking;
pub mod forget;
pub mod marking;
