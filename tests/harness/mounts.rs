//! Snapshots mounted by the real binary.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::netns::skipped;
use crate::{Home, binary, wait_until};

/// A mount namespace in which `/dev/fuse` is for everybody, whatever it is outside: where it is not, who is not root cannot
/// mount anything. It ends with its owner, and what is mounted in it.
pub struct Apart {
    holder: Child,
    _node: TempDir,
}

/// Makes the node on a file system of its own: others may not allow devices.
const OPEN_FUSE: &str = "mount -t tmpfs -o mode=755 none \"$0\" && mknod -m 666 \"$0/fuse\" c 10 229 \
    && mount --bind \"$0/fuse\" /dev/fuse && echo ready && exec sleep 1000";

impl Apart {
    /// None, said aloud, where there can be none.
    pub fn new() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let node = tempfile::tempdir().unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", OPEN_FUSE]).arg(node.path());
        let mut holder = unshare.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let apart = Self { holder, _node: node };
        if line.trim() == "ready" {
            return Some(apart);
        }
        skipped("a /dev/fuse that is for everybody needs a mount namespace, and a device node in it");
        None
    }

    /// A command that runs there, as the user whose home it is.
    pub fn enter(&self, home: &Home, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        home.by_tool(&mut command);
        command.arg(program);
        command
    }

    fn mounts(&self) -> PathBuf {
        format!("/proc/{}/mounts", self.holder.id()).into()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A mount that ends with its owner.
pub struct Mount {
    child: Child,
    dir: PathBuf,
    /// Where the system says what is mounted there.
    mounts: PathBuf,
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
        let command = home.command(&[&["mount", dir.to_str().unwrap()], more].concat());
        Self::by(command, dir, "/proc/self/mounts".into())
    }

    /// The same where nobody else sees it.
    pub fn on_apart(apart: &Apart, home: &Home, dir: &Path) -> Self {
        let mut command = apart.enter(home, binary().to_str().unwrap());
        command.arg("--home").arg(home.path()).arg("mount").arg(dir);
        Self::by(command, dir, apart.mounts())
    }

    fn by(mut command: Command, dir: &Path, mounts: PathBuf) -> Self {
        // Before it is mounted: then only who has mounted it may look.
        let at = dir.canonicalize().unwrap();
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let said: Arc<Mutex<String>> = Arc::default();
        let (log, lines) = (Arc::clone(&said), std::io::BufReader::new(child.stderr.take().unwrap()));
        let listening = std::thread::spawn(move || {
            let note = |line: String| log.lock().unwrap().push_str(&format!("{line}\n"));
            std::io::BufRead::lines(lines).map_while(Result::ok).for_each(note);
        });
        let mut mount = Self { child, dir: at, mounts, said, listening: Some(listening) };
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
        // Of a namespace that has ended there is nothing to read.
        let mounts = std::fs::read_to_string(&self.mounts).unwrap_or_default();
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
