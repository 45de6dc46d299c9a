//! Files to objects and back: walk, backup, restore, browse.
//!
//! The only crate that walks file systems. It reads and writes objects through the two seams of
//! `backhaul-object` ([`ObjectSource`](backhaul_object::source::ObjectSource),
//! [`ObjectSink`](backhaul_object::source::ObjectSink)) and never learns where they lead.
//!
//! - [`beneath`]: how anything is opened without being led elsewhere;
//! - [`attributes`], [`inode_flags`]: what files have besides content; [`extents`]: where they have any;
//! - [`patterns`]: what is meant by rules like those of gitignore;
//! - [`backup`]: a tree of files into a sink;
//! - [`restore`]: a snapshot back to files, or compared with them;
//! - [`browse`], [`find`], [`diff`], [`dump`], [`export`]: looking into a snapshot without restoring it;
//! - [`mount`]: snapshots as a file system;
//! - [`roomy`]: what has no bound, in bounded memory.
//!
//! Work is done by threads and bounded queues; there is no async here, and no clock: time is an argument.

mod attributes;
pub mod backup;
mod beneath;
pub mod browse;
pub mod diff;
pub mod dump;
pub mod export;
mod extents;
pub mod find;
mod inode_flags;
mod listing;
pub mod mount;
pub mod patterns;
pub mod restore;
mod roomy;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod memory;
