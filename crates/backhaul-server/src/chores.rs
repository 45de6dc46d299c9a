//! Chores: what the server does besides backing up, for an operator or by night.
//!
//! Whoever has the vault carries them out by [`carry_out`], one after the other (checks beside the others): the running
//! server's [`worker`], or the command itself when no server runs. A chore says what is to be done whole, so that it may wait in the
//! database; it tells how far it is, and comes to a line of words and a document. `by_night` asks for those that come by themselves.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check;
use crate::error::ServerError;
use crate::export;
use crate::fleet::{FailureKind, Fleet};
use crate::home::ServerHome;
use crate::keep::{braking, forget, marking};
use crate::session::OpenVault;

mod by_night;
pub mod prune;
pub mod worker;

pub(crate) use by_night::queue;

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "chore", rename_all = "kebab-case")]
pub enum Chore {
    /// Say something about named snapshots.
    Mark(marking::Request),
    /// Look whether everything is there and whole, and perhaps mend it.
    Check(check::Request),
    /// Forget snapshots, or say which would be.
    Forget(forget::Request),
    /// Release a client's brake.
    ReleaseBrake(braking::Release),
    /// Export what the server is, besides the vault.
    Export(export::Request),
    /// Give back the room of what no snapshot needs.
    Prune(prune::Request),
}

impl Chore {
    /// True for what keeps the vault in order: whoever looks after it has to know when it fails.
    pub fn is_upkeep(&self) -> bool {
        match self {
            Self::Export(_) => true,
            Self::Forget(request) => request.by == forget::By::Policy && request.mode == forget::Mode::DoIt,
            Self::Prune(request) => !request.dry_run,
            Self::Mark(_) | Self::Check(_) | Self::ReleaseBrake(_) => false,
        }
    }

    /// The word in the list of chores.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mark(request) => request.what.as_str(),
            Self::Check(_) => "check",
            Self::Forget(_) => "forget",
            Self::ReleaseBrake(_) => "release-brake",
            Self::Export(_) => "export",
            Self::Prune(_) => "prune",
        }
    }
}

/// What a chore has at hand.
pub struct Tools<'t> {
    /// The server's directory.
    pub home: &'t ServerHome,
    /// The vault with its keys.
    pub vault: &'t OpenVault,
    /// The fleet database, by a connection of its own.
    pub fleet: &'t mut Fleet,
    /// Seconds since 1970.
    pub now: u64,
    /// Set when the server is about to stop: what is long ends where it is, and can be asked for again.
    pub stop: &'t AtomicBool,
    /// Hears how far it is, in a line.
    pub progress: &'t mut dyn FnMut(&str),
}

impl Tools<'_> {
    /// True when the server is about to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What a chore came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// In one line.
    pub words: String,
    /// As a document (schemas/output).
    pub document: Value,
}

/// Does a chore.
///
/// # Errors
/// It is not done, or not all of it.
pub fn carry_out(chore: &Chore, tools: &mut Tools<'_>) -> Result<Outcome, ServerError> {
    match chore {
        Chore::Mark(request) => marking::carry_out(request, tools),
        Chore::Check(request) => check::carry_out(request, tools),
        Chore::Forget(request) => forget::carry_out(request, tools),
        Chore::ReleaseBrake(request) => braking::release(request, tools),
        Chore::Export(_) => export::carry_out(tools),
        Chore::Prune(request) => prune::carry_out(request, tools),
    }
}

/// Of which kind a failure is.
pub fn failure_kind(error: &ServerError) -> FailureKind {
    use backhaul_store::StoreError;
    match error {
        ServerError::Usage(_) | ServerError::NoClient(_) | ServerError::BadName(_) => FailureKind::Usage,
        ServerError::Store(
            StoreError::Damaged { .. } | StoreError::StillNeeded { .. } | StoreError::Unsure { .. },
        ) => FailureKind::Damage,
        ServerError::WrongKey { .. } => FailureKind::Key,
        _ => FailureKind::Failed,
    }
}
