//! Who is measured: what each runs for a step, and where its repository is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Step;

mod ours;
mod peers;
mod plain;

/// Ours, in the tables.
pub const OURS: &str = "backhaul";

/// Something that saves a folder and brings it back.
pub trait Program {
    /// In the tables.
    fn name(&self) -> &'static str;
    /// What it runs for a step; none if it has no such step. Asked once for each time that the step is done.
    fn command(&mut self, step: Step) -> Option<Command>;
    /// Where what it keeps is.
    fn repository(&self) -> PathBuf;
    /// The process at the other end, if there is one.
    fn server(&self) -> Option<u32> {
        None
    }
    /// Throws away what was restored.
    fn clear(&self);
}

/// All that can be measured.
pub fn names() -> Vec<&'static str> {
    let peers = peers::ALL.map(|(name, _)| name);
    [&[OURS], &peers[..], &plain::ALL].concat()
}

/// Those that are here and wanted, each with an empty repository below a folder.
pub fn all(scratch: &Path, live: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<Box<dyn Program>> {
    let place = |name: &str| {
        let place = Place { root: scratch.join(name), live: live.to_path_buf() };
        std::fs::create_dir_all(place.root.join("repo")).unwrap();
        std::fs::create_dir_all(place.out()).unwrap();
        place
    };
    let mut programs: Vec<Box<dyn Program>> = Vec::new();
    if wanted(OURS) {
        programs.push(Box::new(ours::Backhaul::new(place(OURS))));
    }
    for (name, tool) in peers::ALL {
        if wanted(name) && is_there(tool) {
            programs.push(peers::new(name, place(name)));
        }
    }
    for name in plain::ALL {
        if wanted(name) {
            programs.push(Box::new(plain::Plain::new(name, place(name))));
        }
    }
    programs
}

/// Where a program works.
pub struct Place {
    root: PathBuf,
    /// What is saved.
    live: PathBuf,
}

impl Place {
    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn repository(&self) -> PathBuf {
        self.at("repo")
    }

    /// Where restores go.
    fn out(&self) -> PathBuf {
        self.at("out")
    }

    fn clear(&self) {
        std::fs::remove_dir_all(self.out()).unwrap();
        std::fs::create_dir(self.out()).unwrap();
    }
}

/// Runs what is not measured.
fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}
