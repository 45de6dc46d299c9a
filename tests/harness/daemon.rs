//! A running process of ours: what it says, and the ways in which it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// A running process that ends with its owner.
pub struct Daemon {
    child: Child,
    said: Arc<Mutex<String>>,
    listening: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts a command and waits for its "listening on".
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said: Arc<Mutex<String>> = Arc::default();
        for line in lines.by_ref() {
            let line = line.unwrap();
            said.lock().unwrap().push_str(&format!("{line}\n"));
            if line.starts_with("listening on ") || line.starts_with("not listening") {
                let log = Arc::clone(&said);
                let note = move |line| log.lock().unwrap().push_str(&format!("{line}\n"));
                let listening = std::thread::spawn(move || lines.map_while(Result::ok).for_each(note));
                return Self { child, said, listening: Some(listening) };
            }
        }
        let status = child.wait().unwrap();
        panic!("it did not listen: {} ({status})", said.lock().unwrap());
    }

    /// What it has said on standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said something: what others see of it may be faster than its log is read.
    pub fn says(&self, words: &str) {
        let start = Instant::now();
        while !self.said().contains(words) {
            assert!(start.elapsed() < PATIENCE, "it never said {words:?}, but:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as an orderly shutdown does; all that it has said.
    pub fn terminate(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        self.listening.take().unwrap().join().unwrap();
        self.said()
    }

    /// Ends it in order, without waiting for what is under way.
    pub fn terminate_at_once(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        assert!(self.child.wait().unwrap().success());
    }

    /// Ends it as a power cut does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            let _ = writeln!(std::io::stderr(), "process {}:\n{last}", self.pid());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
