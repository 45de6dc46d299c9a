//! Errors as sentences, hints and exit codes.

use std::fmt::Display;
use std::process::ExitCode;

use backhaul_agent::AgentError;
use backhaul_archive::backup::BackupError;
use backhaul_archive::browse::BrowseError;
use backhaul_archive::dump::DumpError;
use backhaul_archive::export::ExportError;
use backhaul_archive::restore::RestoreError;
use backhaul_net::NetError;
use backhaul_net::enrol::EnrolError;
use backhaul_net::join_code::JoinCodeError;
use backhaul_object::source::TransferError;
use backhaul_server::ServerError;
use backhaul_store::StoreError;

use crate::output;

/// Exit codes, fixed by the command line's contract (docs/cli.md).
pub mod code {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const PARTIAL: u8 = 3;
    pub const NO_HOME: u8 = 10;
    pub const BUSY: u8 = 11;
    pub const NOT_AUTHORISED: u8 = 12;
    pub const DAMAGE: u8 = 13;
    pub const INTERRUPTED: u8 = 130;
}

/// Why the command failed, and what to do next.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: code::FAILED, message: message.into(), hint: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: code::USAGE, ..Self::new(message) }
    }

    pub fn interrupted() -> Self {
        Self { code: code::INTERRUPTED, ..Self::new("interrupted") }
    }

    pub fn is_interrupted(&self) -> bool {
        self.code == code::INTERRUPTED
    }

    pub fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Puts what was being done, and to what, before the reason.
    pub fn while_doing(self, doing: impl Display) -> Self {
        Self { message: format!("{doing}: {}", self.message), ..self }
    }

    /// Says it on stderr (and as JSON on stdout).
    pub fn report(self, json: bool) -> ExitCode {
        output::complain(&format!("backhaul: {}", self.message));
        if let Some(hint) = &self.hint {
            output::complain(&format!("  hint: {hint}"));
        }
        if json {
            let document = serde_json::json!({ "error": self.message, "hint": self.hint, "code": self.code });
            output::json(&document);
        }
        ExitCode::from(self.code)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// For a backup, a restore and a question alike.
const CARRY_ON: &str = "run the same command again: it goes on where it was cut off";

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            ServerError::Store(error) => error.into(),
            ServerError::Net(error) => error.into(),
            ServerError::NoHome { .. } => {
                failure.code(code::NO_HOME).hint("`backhaul server init` makes one; --home says where")
            }
            ServerError::WrongKey { .. } | ServerError::WrongRecoveryKey { .. } => {
                failure.code(code::NOT_AUTHORISED)
            }
            ServerError::BadName(_) | ServerError::BadAddress(_) | ServerError::Usage(_) => {
                failure.code(code::USAGE)
            }
            ServerError::Exists { .. } => failure.hint("it is ready: `backhaul server run` starts it"),
            _ => failure,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::new(error.to_string());
        match &error {
            StoreError::NotAVault { .. } => failure.code(code::NO_HOME),
            StoreError::Busy { .. } => {
                failure.code(code::BUSY).hint("one process at a time: end that one, or wait for it")
            }
            // It says itself what to run: a vault that does not open cannot be checked first.
            StoreError::Damaged { why, .. } if why.contains("`backhaul check") => failure.code(code::DAMAGE),
            StoreError::Damaged { .. } => {
                failure.code(code::DAMAGE).hint("`backhaul check --read-data` tells how far it goes")
            }
            StoreError::PacksAway { .. } => failure.code(code::DAMAGE).hint(
                "is it mounted? then try again; without what is lost goes on `backhaul check --rebuild-index --packs-are-lost`",
            ),
            _ if error.is_full() => {
                failure.hint("make room on the disk; nothing that was stored before is harmed")
            }
            _ => failure,
        }
    }
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            NetError::Resolve { .. } => failure.hint("check the name, and this machine's DNS"),
            NetError::Unreachable { .. } => failure
                .hint("is it running (`backhaul server run`), and is its UDP port open in the firewall?"),
            NetError::WrongAuthority { .. } => failure
                .code(code::NOT_AUTHORISED)
                .hint("another server answers there, or it was set up anew: ask for a new join code"),
            NetError::Clock { .. } => {
                failure.code(code::NOT_AUTHORISED).hint("`date` shows this machine's time")
            }
            NetError::Rejected { .. } | NetError::WrongRole { .. } => failure
                .code(code::NOT_AUTHORISED)
                .hint("if it was set up anew or this client was revoked, ask for a new join code"),
            NetError::Lost(_) => failure.hint(CARRY_ON),
            _ => failure,
        }
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            TransferError::Damaged { .. } => failure
                .code(code::DAMAGE)
                .hint("on the server, `backhaul check --read-data` tells how far it goes"),
            TransferError::Lost(_) => failure.hint(CARRY_ON),
            _ => failure,
        }
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            AgentError::Net(error) => error.into(),
            AgentError::Transfer(error) => error.into(),
            AgentError::Enrol(EnrolError::Net(error)) => error.into(),
            AgentError::Enrol(EnrolError::Refused(_)) => failure
                .code(code::NOT_AUTHORISED)
                .hint("on the server, `backhaul client add` makes a new code"),
            AgentError::NoHome { .. } => failure
                .code(code::NO_HOME)
                .hint("`backhaul join CODE` enrols this machine; `backhaul quickstart PATH` tries everything on one"),
            AgentError::Deferred { .. } => failure.hint("run the same command again then; `agent run` does it by itself"),
            AgentError::Busy { .. } => failure.code(code::BUSY).hint("wait for it, or end that process"),
            AgentError::NotAuthorised(_) => {
                failure.code(code::NOT_AUTHORISED).hint("ask whoever runs the server for a new join code")
            }
            AgentError::Still(_) => failure.hint("`--still auto` saves such files as they change; see docs/cli.md"),
            AgentError::NoPaths => failure.code(code::USAGE),
            AgentError::Backup(BackupError::Path { .. }) => failure.code(code::USAGE),
            _ => failure,
        }
    }
}

impl From<BrowseError> for Failure {
    fn from(error: BrowseError) -> Self {
        match error {
            BrowseError::Transfer { source, path } => {
                Self::from(source).while_doing(String::from_utf8_lossy(&path))
            }
            other => Self::new(other.to_string()),
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Browse(error) => error.into(),
            RestoreError::Transfer(error) => error.into(),
            target @ RestoreError::Target { .. } => {
                Self::new(target.to_string()).hint("choose a target folder that can be made and written")
            }
        }
    }
}

impl From<DumpError> for Failure {
    fn from(error: DumpError) -> Self {
        match error {
            DumpError::Transfer(error) => error.into(),
            other => Self::new(other.to_string()),
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Browse(error) => error.into(),
            other => Self::new(other.to_string()).hint("the archive is not whole: do not use it"),
        }
    }
}

impl From<JoinCodeError> for Failure {
    fn from(error: JoinCodeError) -> Self {
        Self::usage(error.to_string())
    }
}
