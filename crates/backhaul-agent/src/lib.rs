//! The daemon on a client: local state and runs.
//!
//! - [`home`]: the agent's directory: identities, config, state; [`join`](home::AgentHome::join) fills it;
//! - [`remote`]: a session with a server as an [`ObjectSink`](backhaul_object::source::ObjectSink) and
//!   [`ObjectSource`](backhaul_object::source::ObjectSource): threads call, tasks carry;
//! - [`resume`]: the same across cuts of the connection;
//! - [`run`]: one backup over a session, whoever dialled;
//! - [`daemon`]: waits to be dialled, and comes to the server when a backup is due;
//! - [`clock`]: the only place that reads the time.
//!
//! Invariants:
//! - the state of a run is accepted only after the server has committed the snapshot;
//! - one backup at a time per home;
//! - the session is the same whether this side dialled or was dialled.

pub mod clock;
pub mod daemon;
pub mod error;
pub mod home;
pub mod remote;
pub mod resume;
pub mod run;

pub use error::AgentError;
pub use remote::Remote;
