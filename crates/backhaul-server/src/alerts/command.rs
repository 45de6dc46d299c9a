//! Alerts by a program of the operator's: the document on its standard input.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::message::Document;

/// Longest that a program may run.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// So much of what it says is shown, in bytes.
const SHOWN: u64 = 500;

/// Why a program did not take an alert.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The document cannot be written.
    #[error("the document cannot be written: {0}")]
    Document(#[from] serde_json::Error),
    /// It cannot be started, or talked to.
    #[error("{program}: {why}")]
    Io {
        /// Which.
        program: String,
        /// Why.
        why: io::Error,
    },
    /// It said that it failed.
    #[error("{program}: {status}: {said}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said on standard error.
        said: String,
    },
    /// It was killed.
    #[error("{program}: did not end within {} s and was killed", limit.as_secs())]
    Timeout {
        /// Which.
        program: String,
        /// How long it had.
        limit: Duration,
    },
}

/// Runs a program to its end and returns how that was. What is left of it after `limit` is killed with all that it
/// has started.
///
/// # Errors
/// It cannot be started, fails, or does not end.
pub async fn run(
    program: &str,
    args: &[String],
    document: &Document,
    limit: Duration,
) -> Result<String, CommandError> {
    let text = serde_json::to_vec(document)?;
    let failed = |why| CommandError::Io { program: program.to_owned(), why };
    let mut child = Command::new(program)
        .args(args)
        .env("BACKHAUL_ALERT_KIND", &document.kind)
        .env("BACKHAUL_ALERT_CLIENT", document.client.as_deref().unwrap_or_default())
        .env("BACKHAUL_ALERT_WHAT", &document.what)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut group = Group::of(&child);
    let ended = tokio::time::timeout(limit, talk(&mut child, &text)).await;
    let (status, said) = match ended {
        Ok(ended) => ended.map_err(failed)?,
        Err(_) => {
            drop(group);
            // It is dead by now; this takes it off the process table.
            let _ = child.wait().await;
            return Err(CommandError::Timeout { program: program.to_owned(), limit });
        }
    };
    group.0 = None;
    match status.success() {
        true => Ok(status.to_string()),
        false => Err(CommandError::Failed { program: program.to_owned(), status, said }),
    }
}

async fn talk(child: &mut Child, text: &[u8]) -> io::Result<(ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let say = async {
        if let Some(mut stdin) = stdin {
            // A program that does not care what is said may close its ears.
            let _ = stdin.write_all(text).await;
        }
    };
    let hear = async {
        match stderr {
            Some(stderr) => hear(stderr).await,
            None => Ok(String::new()),
        }
    };
    let ((), said, status) = tokio::join!(say, hear, child.wait());
    Ok((status?, said?))
}

async fn hear(mut from: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut said = Vec::new();
    (&mut from).take(SHOWN).read_to_end(&mut said).await?;
    // Whoever says more must not be stopped by a full pipe.
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

/// A program with all that it has started; killed when dropped, as when the server stops meanwhile.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended in this moment.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::alerts::message;

    fn script(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = path.to_str().unwrap().to_owned();
        (dir, program)
    }

    #[tokio::test]
    async fn a_program_gets_the_document_and_the_environment() {
        let (dir, program) = script("cat > \"$1\"; echo $BACKHAUL_ALERT_KIND $BACKHAUL_ALERT_WHAT >> \"$1\"");
        let out = dir.path().join("out");
        let args = [out.to_str().unwrap().to_owned()];
        let answer = run(&program, &args, &message::test("backup", 0).document, TIMEOUT).await.unwrap();
        assert_eq!(answer, "exit status: 0");
        let text = std::fs::read_to_string(out).unwrap();
        assert!(text.contains("\"server\":\"backup\"") && text.ends_with("test test\n"), "{text}");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_quoted_and_one_that_is_not_there_is_named() {
        let (_dir, program) = script("echo no signal >&2; exit 3");
        let document = message::test("backup", 0).document;
        let failed = run(&program, &[], &document, TIMEOUT).await.unwrap_err().to_string();
        assert!(failed.contains("exit status: 3: no signal"), "{failed}");
        let failed = run("/nowhere/notify", &[], &document, TIMEOUT).await.unwrap_err().to_string();
        assert!(failed.contains("/nowhere/notify"), "{failed}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_all_that_it_started() {
        let (dir, program) = script("sleep 600 & echo $! > \"$1\"; wait");
        let child = dir.path().join("child");
        let args = [child.to_str().unwrap().to_owned()];
        let limit = Duration::from_secs(1);
        let failed = run(&program, &args, &message::test("backup", 0).document, limit).await.unwrap_err();
        assert!(matches!(failed, CommandError::Timeout { .. }), "{failed}");
        let pid: i32 = std::fs::read_to_string(child).unwrap().trim().parse().unwrap();
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        for _ in 0..200 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(gone(), "the sleeping child lives on");
    }
}
