//! The tools of file systems, and what is said when they fail.

use std::future::Future;
use std::time::Duration;

use backhaul_child::{Call, CallError};

/// How long a tool may take: making a still waits for what is being written.
const LIMIT: Duration = Duration::from_secs(120);
/// Where tools of administrators are, when a service's search path leaves them out.
const ADMINISTRATORS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Runs tools; tests have others.
pub(super) trait Tools: Sync {
    /// What a program says on standard output.
    fn ask(&self, program: &str, args: &[&str]) -> impl Future<Output = Result<Vec<u8>, Refusal>> + Send;
}

/// Why a tool did nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not installed.
    Missing(String),
    /// In its words.
    Said(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(program) => write!(to, "{program} is not installed"),
            Self::Said(why) => to.write_str(why),
        }
    }
}

/// Those of this machine.
pub(super) struct Programs;

impl Tools for Programs {
    async fn ask(&self, program: &str, args: &[&str]) -> Result<Vec<u8>, Refusal> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let env = [("PATH", format!("{path}:{ADMINISTRATORS}")), ("LC_ALL", "C".to_owned())];
        let call = Call { program, args: &args, env: &env, input: b"", limit: LIMIT };
        backhaul_child::ask(call).await.map_err(|error| match error {
            CallError::Io { why, .. } if why.kind() == std::io::ErrorKind::NotFound => {
                Refusal::Missing(program.to_owned())
            }
            CallError::Failed { said, .. } if !said.is_empty() => {
                Refusal::Said(format!("{program}: {}", said.lines().collect::<Vec<_>>().join("; ")))
            }
            other => Refusal::Said(other.to_string()),
        })
    }
}
