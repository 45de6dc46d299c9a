//! Sealed objects at rest: backends, packs, index, catalog, check.
//!
//! A vault is a directory (docs/format.md, "The vault on disk"):
//! `vault.desc` (descriptor), `packs/ab/<hash>` (sealed packs), `open/` (packs being written), `parity/ab/<hash>` (their sidecars),
//! `snaps/<client>/<sequence>.snap` (commit points), and two caches: `catalog.sqlite` and `index/`.
//!
//! In reading order:
//! - [`blobs`]: the backend seam, [`Blobs`](blobs::Blobs), with a local directory behind it;
//! - [`pack`]: the pack format; [`writer`]: a pack being written;
//! - [`sidecar`]: the parity file of a pack; [`parity`]: how it is made, and mends;
//! - [`manifest`]: the file that makes a snapshot exist; [`mark`]: what was said about it since: pinned, forgotten;
//! - [`index`]: ordinals, locations, fingerprints, edges; [`catalog`]: packs and snapshots in SQLite;
//! - [`vault`]: [`Vault`], the façade; [`session`]: [`WriteSession`], the only way to add objects;
//! - [`owned`]: what a client may refer to; [`check`] and [`rebuild`]: trust nothing, make caches anew;
//! - [`reclaim`]: what no snapshot reaches goes, beside everything else;
//! - [`reserve`]: room that is set aside for that; [`revived`]: what was lost and comes back; [`acknowledged`]: whether the
//!   catalog is the newest;
//! - [`repair`]: makes good what is damaged; `around`: reads around bad sectors; [`aside`]: what a repair has replaced; [`scrub`]: when which pack is read again.
//!
//! Invariants:
//! - this crate never sees a vault key: all it does works from clear headers;
//! - an object is accepted only when everything it refers to is present, so ordinals grow from children to
//!   parents;
//! - what is acknowledged as durable survives a crash: packs, then index, then catalog, then the ack;
//! - a snapshot exists if and only if its manifest file does, and that is written last;
//! - a forgotten snapshot is hidden and can be had back; only [`mark::may_reclaim`] releases it;
//! - a write error poisons the session: it can only be dropped.

pub mod acknowledged;
mod around;
pub mod aside;
pub mod atomic;
pub mod bits;
pub mod blobs;
pub mod catalog;
pub mod check;
pub mod error;
pub mod index;
pub mod manifest;
pub mod mark;
pub mod owned;
pub mod pack;
pub mod parity;
pub mod rebuild;
pub mod reclaim;
pub mod repair;
pub mod reserve;
pub mod revived;
pub mod scrub;
pub mod session;
pub mod sidecar;
#[cfg(test)]
mod tests;
pub mod vault;
pub mod writer;

pub use bits::Bits;
pub use error::StoreError;
pub use index::Ordinal;
pub use owned::Owned;
pub use reclaim::{Pass, ReaderPass};
pub use session::WriteSession;
pub use vault::Vault;
