//! The daemon with the vaults: fleet, sessions, dispatch.
//!
//! - [`home`]: the server's directory: config, CA, keys, vault; [`keyring`]: the vault key, wrapped;
//! - [`fleet`]: clients, invitations and runs in SQLite, shared with the command line's processes;
//! - [`daemon`]: [`Server`](daemon::Server): accepts, polls the fleet, reloads, drains, stops;
//! - [`dispatch`]: the scheduler with what it was told; [`desk`]: where it is told and obeyed; [`policies`]: the policies
//!   in force, and how a new version spreads;
//! - [`hub`]: all open sessions; [`gate`]: how one is let in; [`pull`]: dials of the server;
//! - `ended`: what the end of a session means for its client's run;
//! - `errands`: restores that operators order from other clients' agents;
//! - [`ticket`]: places in the queue that survive; [`rates`]: how fast bytes are accepted;
//! - [`alerts`]: what people are told without asking;
//! - [`chores`]: what is done besides backing up, for an operator or by night; [`keep`]: what is kept, and for how long;
//! - [`check`]: is the vault whole; [`damage`]: what it costs when it is not, by path; [`scrub`]: reads it over and over;
//! - [`export`]: the server's own backup, and how it stands up again;
//! - [`enrolment`]: answers join requests;
//! - [`session`]: one conversation, whoever dialled: [`session::ingest`] checks and stores what arrives,
//!   [`session::answers`] says what is there, `session::promises` who has been asked for what is not, [`session::reads`] sends
//!   what may be read;
//! - [`clock`]: the only place that reads the time.
//!
//! Invariants:
//! - every object is decompressed and re-hashed before it is stored, whoever sent it;
//! - a client refers to and reads only what it owns (`backhaul_store::Owned`);
//! - one backup session per client: a newer one ends the older;
//! - a revoked client's sessions end within [`daemon::POLL`].

pub mod alerts;
pub mod check;
pub mod chores;
pub mod clock;
pub mod daemon;
pub mod damage;
mod desk;
pub mod dispatch;
mod ended;
pub mod enrolment;
mod errands;
pub mod error;
pub mod export;
pub mod fleet;
mod gate;
pub mod home;
pub mod hub;
pub mod keep;
pub mod keyring;
pub mod policies;
pub mod protection;
mod pull;
mod rates;
pub mod scrub;
pub mod session;
mod ticket;

pub use error::ServerError;
