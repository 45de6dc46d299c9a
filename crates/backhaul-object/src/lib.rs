//! What the bytes mean: ids, chunking, sealing, trees, snapshots, canonical encoding.
//!
//! This crate is pure: no files, no sockets, no clock, no randomness (nonces are arguments). The
//! specification is docs/format.md; golden vectors in schemas/vectors pin every encoding.
//!
//! In reading order:
//! - [`ids`]: [`ObjectId`], [`Proof`] and the other names of things;
//! - [`keys`]: the vault key and what is derived from it;
//! - [`header`]: the clear header of an object: kind, id, references, sizes;
//! - [`seal`]: plaintext to [`Compressed`] (on the wire) to [`Sealed`] (at rest), and back;
//! - [`chunker`]: content-defined cuts of large files with the vault's secret gear table;
//! - [`bundle`]: many small files in one object; [`piece`], [`flist`]: what a big file is made of;
//! - [`patch`]: a chunk as a difference to older ones; [`signature`]: how that is found without having them;
//! - [`entry`], [`node`]: directory entries, and the nodes that hold them (folding, splitting);
//! - [`snapshot`]: the manifest; [`source`]: the two seams through which objects are read and written;
//! - [`small_file`]: what the small files beside the objects have in common;
//! - [`breach`]: laws that can be broken in a build for the campaign.
//!
//! Invariants:
//! - an id is a keyed hash of kind, references and plaintext: two objects with one id are equal, and a patch equals the chunk
//!   whose id it has;
//! - payloads name references by index into the clear header, so liveness needs no key;
//! - every decoder checks declared lengths against its input and a limit before it allocates;
//! - encoding is canonical: decode then encode gives the same bytes.

pub mod breach;
pub mod bundle;
pub mod chunker;
pub mod codec;
pub mod descriptor;
pub mod entry;
pub mod flist;
pub mod header;
pub mod ids;
pub mod keys;
pub mod node;
pub mod patch;
pub mod piece;
pub mod seal;
pub mod signature;
pub mod small_file;
pub mod snapshot;
pub mod source;

pub use codec::FormatError;
pub use header::{Header, Kind, Reference};
pub use ids::{ObjectId, OwnIdMap, Proof, ShortId};
pub use seal::{Compressed, Object, Sealed};
