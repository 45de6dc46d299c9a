//! How much this process yields to others.

use std::fs;

use rustix::process::{Pid, setpriority_process};
use serde::{Deserialize, Serialize};

/// A nice value that leaves the processor to whatever the user does, and still gets on with the work.
const NICE: i32 = 10;

/// How this process competes with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Behind what people wait for.
    #[default]
    Low,
    /// As it was started.
    Normal,
}

impl Priority {
    /// Applies it to all threads of this process and those that they start: the nice value for the processor, and the
    /// last level of the usual class for the disk (where its scheduler knows classes). There is no way back up without
    /// privileges; a failure is only logged.
    pub fn apply(self) {
        if self == Self::Normal {
            return;
        }
        let last = ioprio::Priority::new(ioprio::Class::BestEffort(ioprio::BePriorityLevel::lowest()));
        // Both system calls are per thread.
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let threads = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for thread in threads.filter_map(Pid::from_raw) {
            if let Err(error) = setpriority_process(Some(thread), NICE) {
                tracing::debug!("priority of thread {thread:?} stays: {error}");
            }
            let whose = ioprio::Target::Process(ioprio::Pid::from_raw(thread.as_raw_nonzero().get()));
            if let Err(error) = ioprio::set_priority(whose, last) {
                tracing::debug!("I/O priority of thread {thread:?} stays: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use rustix::process::getpriority_process;
    use std::process::{Command, Stdio};

    #[test]
    fn every_thread_is_lowered() {
        // In a process of its own: the others would stay slow.
        if std::env::var_os("BACKHAUL_TEST_NICE").is_none() {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "priority::tests::every_thread_is_lowered"])
                .env("BACKHAUL_TEST_NICE", "1")
                .stdout(Stdio::null())
                .status();
            assert!(child.unwrap().success());
            return;
        }
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            wait.recv().unwrap();
            getpriority_process(None).unwrap()
        });
        Priority::Normal.apply();
        assert!(getpriority_process(None).unwrap() < NICE);
        Priority::Low.apply();
        go.send(()).unwrap();
        assert_eq!((getpriority_process(None).unwrap(), other.join().unwrap()), (NICE, NICE));
    }
}
