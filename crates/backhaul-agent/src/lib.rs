//! The daemon on a client: local state and runs.
//!
//! - [`home`]: the agent's directory: identities, config, state; [`join`](home::AgentHome::join) fills it;
//! - [`remote`]: a session with a server as an [`ObjectSink`](backhaul_object::source::ObjectSink) and
//!   [`ObjectSource`](backhaul_object::source::ObjectSource): threads call, tasks carry;
//! - [`resume`]: the same across cuts of the connection;
//! - [`run`]: one backup over a session, whoever dialled;
//! - [`errand`]: restores that the server's operator orders, as far as the owner of this machine allows them;
//! - [`attend`]: when it dials, stays linked, asks: a pure machine;
//! - [`daemon`]: senses, decides, carries out: waits to be dialled, stays linked, comes to the server;
//! - [`ways`]: the connections of runs, to be moved and closed from elsewhere;
//! - [`stills`]: snapshots of file systems for the time of a backup;
//! - [`introduce`], [`terms`]: what it says about itself, and what the policy asks of it;
//! - [`signals`]: what is sensed of the machine: network, sleep, power, cost;
//! - [`gates`]: whether it may be backed up now; [`pace`]: how often a link must be heard of;
//! - [`priority`], [`inhibit`]: yields to other programs, and keeps the machine awake for a run;
//! - [`clock`]: the only place that reads the time.
//!
//! Invariants:
//! - the state of a run is accepted only after the server has committed the snapshot;
//! - one backup at a time per home;
//! - the session is the same whether this side dialled or was dialled.

pub mod attend;
pub mod clock;
pub mod daemon;
pub mod errand;
pub mod error;
pub mod gates;
pub mod home;
mod hooks;
pub mod inhibit;
mod introduce;
mod pace;
pub mod priority;
pub mod remote;
pub mod resume;
pub mod run;
pub mod signals;
pub mod sources;
pub mod stills;
pub mod terms;
pub mod ways;

pub use error::AgentError;
pub use remote::Remote;
