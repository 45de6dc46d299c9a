//! File systems of a test's own: in a file of their own, or in memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A mounted file system; it goes with its owner.
pub struct Volume {
    dir: TempDir,
}

fn run(program: &str, args: &[&str]) -> Option<Output> {
    Command::new(program).args(args).output().ok()
}

fn works(program: &str, args: &[&str]) -> bool {
    run(program, args).is_some_and(|output| output.status.success())
}

/// Mounts by a program what the kernel does not know itself.
fn by_program(program: &str, image: &str, at: &str) -> bool {
    let Some(made) = run("losetup", &["-f", "--show", image]) else { return false };
    let device = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let mounted = works(program, &[&device, at]);
    // Once nothing is mounted from it.
    works("losetup", &["-d", &device]);
    mounted
}

impl Volume {
    /// One of a type, with what else its maker is to be told, and a size, with options to mount it by. None where this machine has no such thing; that is said.
    pub fn new(kind: &str, mib: u64, options: &str) -> Option<Self> {
        let volume = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(volume.path()).unwrap();
        let (image, path) = (volume.image(), volume.path());
        let (image, at) = (image.to_str().unwrap(), path.to_str().unwrap());
        let (kind, how) = kind.split_once(' ').unwrap_or((kind, ""));
        let made = match kind {
            "tmpfs" | "ramfs" => {
                let options = format!("size={mib}m{}{options}", if options.is_empty() { "" } else { "," });
                works("mount", &["-t", kind, "-o", &options, kind, at])
            }
            _ => {
                std::fs::File::create(image).unwrap().set_len(mib << 20).unwrap();
                let options = format!("loop{}{options}", if options.is_empty() { "" } else { "," });
                let how: Vec<&str> = how.split_whitespace().chain([image]).collect();
                works(&format!("mkfs.{kind}"), &how)
                    && (works("mount", &["-t", kind, "-o", &options, image, at])
                        || kind == "exfat" && by_program("mount.exfat-fuse", image, at))
            }
        };
        if !made {
            crate::netns::skipped(&format!("no {kind} can be made and mounted here"));
        }
        made.then_some(volume)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    /// The file that it is in.
    pub fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// The device that it is mounted from.
    pub fn device(&self) -> String {
        let path = self.path();
        let found = run("findmnt", &["-n", "-o", "SOURCE", path.to_str().unwrap()]).unwrap();
        String::from_utf8(found.stdout).unwrap().trim().split('[').next().unwrap().to_owned()
    }

    /// Unmounts it and mounts it again from the file that it is in: nothing of it is in memory then.
    pub fn again(&self) {
        let path = self.path();
        assert!(works("umount", &[path.to_str().unwrap()]));
        assert!(works("mount", &["-o", "loop", self.image().to_str().unwrap(), path.to_str().unwrap()]));
    }

    /// Makes it read-only.
    pub fn freeze(&self) {
        assert!(works("mount", &["-o", "remount,ro", self.path().to_str().unwrap()]));
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let path = self.path();
        let at = path.to_str().unwrap();
        if !works("umount", &[at]) {
            works("umount", &["-l", at]);
        }
    }
}

/// Runs a tool that must do what it is told.
pub fn tool(program: &str, args: &[&Path]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
