//! The daemon with the vaults: fleet, sessions, dispatch.
//!
//! - [`home`]: the server's directory: config, CA, keys, vault; [`keyring`]: the vault key, wrapped;
//! - [`fleet`]: clients, invitations and runs in SQLite, shared with the command line's processes;
//! - [`daemon`]: [`Server`](daemon::Server): accepts, dials, polls the fleet, stops;
//! - [`dispatch`]: what the scheduler is told and what follows; [`policies`]: the policies in force;
//! - [`enrolment`]: answers join requests;
//! - [`session`]: one conversation, whoever dialled: [`session::ingest`] checks and stores what arrives,
//!   [`session::answers`] says what is there, [`session::reads`] sends what may be read;
//! - [`clock`]: the only place that reads the time.
//!
//! Invariants:
//! - every object is decompressed and re-hashed before it is stored, whoever sent it;
//! - a client refers to and reads only what it owns (`backhaul_store::Owned`);
//! - one backup session per client: a newer one ends the older;
//! - a revoked client's sessions end within [`daemon::POLL`].

pub mod clock;
pub mod daemon;
pub mod dispatch;
pub mod enrolment;
pub mod error;
pub mod fleet;
pub mod home;
pub mod keyring;
pub mod policies;
pub mod session;

pub use error::ServerError;
