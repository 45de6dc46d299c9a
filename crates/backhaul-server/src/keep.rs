//! What is kept, and for how long.
//!
//! - [`marking`]: pins, and snapshots that are forgotten or had back by name.

pub mod marking;
