//! Files to objects and back: walk, backup, restore, browse.
//!
//! The only crate that walks file systems. It reads and writes objects through the two seams of
//! `backhaul-object` ([`ObjectSource`](backhaul_object::source::ObjectSource),
//! [`ObjectSink`](backhaul_object::source::ObjectSink)) and never learns where they lead.
//!
//! - [`attributes`]: what files have besides content;
//! - [`backup`]: a tree of files into a sink;
//! - [`restore`]: a snapshot back to files, or compared with them;
//! - [`browse`], [`find`], [`dump`]: looking into a snapshot without restoring it.
//!
//! Work is done by threads and bounded queues; there is no async here, and no clock: time is an argument.

mod attributes;
pub mod backup;
pub mod browse;
pub mod dump;
pub mod find;
pub mod restore;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod memory;
