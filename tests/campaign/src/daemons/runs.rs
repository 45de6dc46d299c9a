//! Processes that something happens to while they run.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{When, wrap};
use crate::local::Failure;
use crate::real::{Daemon, Done, Real, Running};

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command in a role's home that is killed.
pub(super) fn ended(real: &Real<'_>, when: When, role: &str, args: &[&str]) -> Result<Done, Failure> {
    let mut waiting = Waiting::begin(real.command(&wrap(real, when), role, args))?;
    loop {
        if let Some(done) = waiting.done()? {
            real.arm(None);
            return Ok(done);
        }
        if let When::Time(after) = when
            && waiting.since.elapsed() >= after
        {
            waiting.kill();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A process with its outputs, which are read while it runs.
struct Waiting {
    child: Child,
    since: Instant,
    outputs: Vec<std::thread::JoinHandle<Vec<u8>>>,
}

impl Waiting {
    fn begin(mut command: Command) -> Result<Self, Failure> {
        fn listen(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = from.read_to_end(&mut bytes);
                bytes
            })
        }
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(|error| error.to_string())?;
        let outputs = child.stdout.take().map(listen).into_iter().chain(child.stderr.take().map(listen));
        let outputs = outputs.collect();
        Ok(Self { child, since: Instant::now(), outputs })
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// What it came to, if it has ended.
    fn done(&mut self) -> Result<Option<Done>, Failure> {
        let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? else {
            if self.since.elapsed() < PATIENCE {
                return Ok(None);
            }
            self.kill();
            let _ = self.child.wait();
            return Err(format!("still at it after {PATIENCE:?}: {}", self.said()));
        };
        Ok(Some(Done { code: status.code(), said: self.said() }))
    }

    fn said(&mut self) -> String {
        let all: Vec<u8> =
            self.outputs.drain(..).flat_map(|output| output.join().unwrap_or_default()).collect();
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// The daemon that was killed; a command may be doing what it was asked for meanwhile, and have its home for that time.
pub(super) fn again(real: &Real<'_>, daemon: Daemon) -> Result<Running, Failure> {
    let begun = Instant::now();
    loop {
        match real.start(daemon, &[]) {
            Err(said) if said.contains("in use") && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done.map_err(|said| format!("{} does not start again: {said}", daemon.name())),
        }
    }
}

/// A command beside a daemon that is killed, and started again.
pub(super) fn beside(
    real: &Real<'_>,
    (daemon, when): (Daemon, When),
    role: &str,
    args: &[&str],
) -> Result<(Done, bool), Failure> {
    let (mut running, mut killed) = match real.start(daemon, &wrap(real, when)) {
        Ok(running) => (running, false),
        Err(said)
            if matches!(when, When::Fault(_)) && (said.trim().is_empty() || said.contains("panicked at")) =>
        {
            return Err(format!("{} did not start, and said {said:?}", daemon.name()));
        }
        Err(_) => (again(real, daemon)?, true),
    };
    let mut waiting = Waiting::begin(real.command(&[], role, args))?;
    loop {
        if let Some(done) = waiting.done()? {
            real.arm(None);
            return match running.said() {
                said if said.contains("panicked at") => Err(format!("{}: {said}", daemon.name())),
                _ => Ok((done, killed)),
            };
        }
        if let When::Time(after) = when
            && !killed
            && waiting.since.elapsed() >= after
        {
            running.kill();
        }
        if running.has_ended() {
            if matches!(when, When::Fault(_)) {
                return Err(format!("{} ended while it ran: {}", daemon.name(), running.said()));
            }
            killed = true;
            drop(running);
            running = again(real, daemon)?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
