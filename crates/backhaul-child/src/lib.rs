//! Programs of somebody else's, run to their end within a bound of time.
//!
//! A [`Call`] says what is run; [`run`] runs it, and [`ask`] wants to know what it says. A server's alerts, a client's hooks
//! and the tools of file systems are such calls.
//!
//! Invariants:
//! - nothing that a program does or leaves undone holds up its caller for longer than [`Call::limit`];
//! - one that is given up is killed with all that it has started, also when its caller is dropped;
//! - what it says on standard error is read to its end and shown up to [`SHOWN`] bytes; an answer has at most [`ANSWER`].

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// So much of what it says is shown, in bytes.
pub const SHOWN: usize = 500;
/// Longest answer, in bytes.
pub const ANSWER: usize = 4 << 20;
/// How long a program that has ended may keep others waiting for what it left running to fall silent.
const SILENCE: Duration = Duration::from_millis(200);

/// A program to run.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// Found by the search path if there is no `/` in it.
    pub program: &'c str,
    /// Its arguments.
    pub args: &'c [String],
    /// What its environment has besides our own.
    pub env: &'c [(&'c str, String)],
    /// What it finds on its standard input.
    pub input: &'c [u8],
    /// Longest that it may run.
    pub limit: Duration,
}

/// Why a program did not do what it should.
#[derive(Debug, Error)]
pub enum CallError {
    /// It cannot be started, or talked to.
    #[error("{program}: {why}")]
    Io {
        /// Which.
        program: String,
        /// Why.
        why: io::Error,
    },
    /// It said that it failed.
    #[error("{program}: {status}{}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said on standard error.
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

/// Runs a program to its end, in `/`, and returns how that was.
///
/// # Errors
/// It cannot be started, fails, or does not end.
pub async fn run(call: Call<'_>) -> Result<String, CallError> {
    to_end(call, Stdio::null()).await.map(|(status, _)| status.to_string())
}

/// Runs a program to its end, in `/`, and returns what it said on standard output.
///
/// # Errors
/// As [`run`], or it says more than [`ANSWER`].
pub async fn ask(call: Call<'_>) -> Result<Vec<u8>, CallError> {
    let (_, answer) = to_end(call, Stdio::piped()).await?;
    match answer.len() {
        0..=ANSWER => Ok(answer),
        _ => Err(CallError::Io { program: call.program.to_owned(), why: io::ErrorKind::FileTooLarge.into() }),
    }
}

async fn to_end(call: Call<'_>, out: Stdio) -> Result<(ExitStatus, Vec<u8>), CallError> {
    let Call { program, limit, .. } = call;
    let failed = |why| CallError::Io { program: program.to_owned(), why };
    let mut child = Command::new(program)
        .args(call.args)
        .envs(call.env.iter().map(|(name, value)| (*name, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut group = Group::of(&child);
    let ended = tokio::time::timeout(limit, talk(&mut child, call.input)).await;
    let Said { status, answer, complaint } = match ended {
        Ok(ended) => ended.map_err(failed)?,
        Err(_) => {
            drop(group);
            // It is dead by now; this takes it off the process table.
            let _ = child.wait().await;
            return Err(CallError::Timeout { program: program.to_owned(), limit });
        }
    };
    group.0 = None;
    match status.success() {
        true => Ok((status, answer)),
        false => Err(CallError::Failed { program: program.to_owned(), status, said: complaint }),
    }
}

/// What came of a program.
struct Said {
    status: ExitStatus,
    answer: Vec<u8>,
    complaint: String,
}

async fn talk(child: &mut Child, text: &[u8]) -> io::Result<Said> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (answer, said) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let converse = async {
        let say = async {
            if let Some(mut stdin) = stdin {
                // A program that does not care what is said may close its ears.
                let _ = stdin.write_all(text).await;
            }
        };
        let listen = async {
            match stdout {
                // One more than there may be tells that there is more.
                Some(stdout) => hear(stdout, &answer, ANSWER + 1).await,
                None => Ok(()),
            }
        };
        let hear = async {
            match stderr {
                Some(stderr) => hear(stderr, &said, SHOWN).await,
                None => Ok(()),
            }
        };
        let ((), listened, heard) = tokio::join!(say, listen, hear);
        listened.and(heard)
    };
    tokio::pin!(converse);
    let status = tokio::select! {
        heard = &mut converse => {
            heard?;
            child.wait().await?
        }
        status = child.wait() => {
            // What it has started and left may hold its standard error open: its own end is what counts.
            let _ = tokio::time::timeout(SILENCE, &mut converse).await;
            status?
        }
    };
    let (answer, said) = (std::mem::take(&mut *answer.lock().await), said.lock().await);
    Ok(Said { status, answer, complaint: String::from_utf8_lossy(&said).trim().to_owned() })
}

async fn hear(mut from: impl AsyncRead + Unpin, said: &Mutex<Vec<u8>>, max: usize) -> io::Result<()> {
    let mut buffer = [0; 4_096];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        // Whoever says more must not be stopped by a full pipe.
        let mut said = said.lock().await;
        let room = max.saturating_sub(said.len());
        said.extend(&buffer[..n.min(room)]);
    }
}

/// A program with all that it has started; killed when dropped, as when its caller stops meanwhile.
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
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::Path;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Runs `text` by the shell. No file of our own is executed: another test that forks in this
    /// moment would hold it open for writing, and it could not be started ("text file busy").
    async fn sh(text: &str, arg: &Path, limit: Duration) -> Result<String, CallError> {
        let args = ["-c", text, "name", arg.to_str().unwrap()].map(str::to_owned);
        let env = [("BACKHAUL_WORD", "spoken".to_owned())];
        run(Call { program: "/bin/sh", args: &args, env: &env, input: b"heard", limit }).await
    }

    #[tokio::test]
    async fn a_program_gets_its_input_and_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let answer = sh("cat > \"$1\"; echo \" $BACKHAUL_WORD\" >> \"$1\"", &out, LIMIT).await.unwrap();
        assert_eq!(answer, "exit status: 0");
        assert_eq!(std::fs::read_to_string(out).unwrap(), "heard spoken\n");
    }

    #[tokio::test]
    async fn one_that_fails_is_quoted_and_one_that_is_not_there_is_named() {
        let failed = sh("echo no signal >&2; exit 3", Path::new("/"), LIMIT).await.unwrap_err().to_string();
        assert!(failed.contains("exit status: 3: no signal"), "{failed}");
        let silent = sh("exit 3", Path::new("/"), LIMIT).await.unwrap_err().to_string();
        assert!(silent.ends_with("exit status: 3"), "{silent}");
        let call = Call { program: "/nowhere/notify", args: &[], env: &[], input: b"", limit: LIMIT };
        let failed = run(call).await.unwrap_err().to_string();
        assert!(failed.contains("/nowhere/notify"), "{failed}");
    }

    #[tokio::test]
    async fn an_answer_is_heard_whole_unless_it_has_no_end() {
        let asked = |text: &str| ["-c", text].map(str::to_owned);
        let (long, endless) = (asked("head -c 300000 /dev/zero"), asked("head -c 9000000 /dev/zero"));
        let call = Call { program: "/bin/sh", args: &long, env: &[], input: b"", limit: LIMIT };
        assert_eq!(ask(call).await.unwrap().len(), 300_000);
        let failed = ask(Call { args: &endless, ..call }).await.unwrap_err();
        assert!(failed.to_string().contains("too large"), "{failed}");
    }

    #[tokio::test]
    async fn one_that_says_much_is_cut_and_one_that_leaves_others_behind_is_not_waited_for() {
        let much = "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done >&2; exit 1";
        let failed = sh(much, Path::new("/"), LIMIT).await.unwrap_err().to_string();
        assert!(failed.len() < 600, "{}", failed.len());
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let watch = std::time::Instant::now();
        sh("sleep 60 & echo $! > \"$1\"", &pid, LIMIT).await.unwrap();
        assert!(watch.elapsed() < Duration::from_secs(20), "{:?}", watch.elapsed());
        let pid = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let child = dir.path().join("child");
        let mut said = String::new();
        // On a busy machine a second may be too little to start anything.
        for limit in [1, 5, 25] {
            let limit = Duration::from_secs(limit);
            let failed = sh("sleep 600 & echo $! > \"$1\"; wait", &child, limit).await.unwrap_err();
            assert!(matches!(failed, CallError::Timeout { .. }), "{failed}");
            said = std::fs::read_to_string(&child).unwrap_or_default();
            if said.ends_with('\n') {
                break;
            }
        }
        let pid: i32 = said.trim().parse().unwrap();
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        for _ in 0..6_000 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(gone(), "the sleeping child lives on");
    }
}
