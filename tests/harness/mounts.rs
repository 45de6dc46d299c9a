//! Snapshots mounted by the real binary.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::netns::skipped;
use crate::{Home, wait_until};

/// A mount that ends with its owner.
pub struct Mount {
    child: Child,
    dir: PathBuf,
    said: Arc<Mutex<String>>,
    listening: Option<JoinHandle<()>>,
}

/// True where something can be mounted; else it is said aloud that a test does not run.
pub fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !can {
        skipped("a mount needs root and /dev/fuse");
    }
    can
}

impl Mount {
    /// Mounts on an empty folder, and waits until that is done.
    pub fn on(home: &Home, dir: &Path, more: &[&str]) -> Self {
        // Before it is mounted: then only who has mounted it may look.
        let at = dir.canonicalize().unwrap();
        let mut command = home.command(&[&["mount", dir.to_str().unwrap()], more].concat());
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let said: Arc<Mutex<String>> = Arc::default();
        let (log, lines) = (Arc::clone(&said), std::io::BufReader::new(child.stderr.take().unwrap()));
        let listening = std::thread::spawn(move || {
            let note = |line: String| log.lock().unwrap().push_str(&format!("{line}\n"));
            std::io::BufRead::lines(lines).map_while(Result::ok).for_each(note);
        });
        let mut mount = Self { child, dir: at, said, listening: Some(listening) };
        wait_until("it is mounted", || {
            assert!(mount.child.try_wait().unwrap().is_none(), "{}", mount.said());
            mount.said().contains("mounted on") && mount.is_there()
        });
        mount
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// True while the system knows of it.
    pub fn is_there(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == self.dir.to_str())
    }

    /// Unmounts it as a user does, and waits until its process ends.
    pub fn umount(self) -> (ExitStatus, String) {
        self.umount_by(Command::new("umount"))
    }

    /// The same by another program, which is told the folder.
    pub fn umount_by(mut self, mut command: Command) -> (ExitStatus, String) {
        assert!(command.arg(&self.dir).status().unwrap().success());
        self.end()
    }

    /// Ends its process in order, and waits for that.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = self.end();
        assert!(!self.is_there(), "it is unmounted");
        ended
    }

    /// Waits until its process has ended, and all that it said is heard.
    fn end(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        self.listening.take().unwrap().join().unwrap();
        (status, self.said())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.is_there() {
            let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        }
    }
}
