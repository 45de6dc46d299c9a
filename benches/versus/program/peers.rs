//! Other backup programs, writing straight to a local folder, encrypted, compressed by zstd 3 or what they take by themselves.

use std::path::PathBuf;
use std::process::Command;

use super::{Place, Program, run};
use crate::Step;

/// Their names here, and the tools that must be on the PATH.
pub const ALL: [(&str, &str); 4] =
    [("restic", "restic"), ("rustic", "rustic"), ("borg", "borg"), ("bupstash", "bupstash")];

/// A program with an empty repository.
pub fn new(name: &'static str, place: Place) -> Box<dyn Program> {
    let peer = Peer { name, place, backups: 0 };
    peer.init();
    Box::new(peer)
}

struct Peer {
    name: &'static str,
    place: Place,
    /// Made so far; the newest has this number.
    backups: usize,
}

impl Peer {
    fn tool(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.name);
        let (repo, cache) = (self.place.repository(), self.place.at("cache"));
        command.args(args);
        match self.name {
            "restic" => command
                .env("RESTIC_REPOSITORY", repo)
                .env("RESTIC_CACHE_DIR", cache)
                .env("RESTIC_PASSWORD", "x"),
            "rustic" => command
                .env("RUSTIC_REPOSITORY", repo)
                .env("RUSTIC_CACHE_DIR", cache)
                .env("RUSTIC_PASSWORD", "x")
                .env("RUSTIC_NO_PROGRESS", "true"),
            "borg" => command.env("BORG_REPO", repo).env("BORG_BASE_DIR", cache).env("BORG_PASSPHRASE", "x"),
            "bupstash" => command
                .env("BUPSTASH_REPOSITORY", repo.join("r"))
                .env("BUPSTASH_KEY", self.place.at("key"))
                .env("BUPSTASH_SEND_LOG", cache.join("sendlog"))
                .env("BUPSTASH_QUERY_CACHE", cache.join("query"))
                .env("HOME", &self.place.root),
            other => unreachable!("{other} is in ALL and nowhere else"),
        };
        command
    }

    fn init(&self) {
        std::fs::create_dir(self.place.at("cache")).unwrap();
        match self.name {
            "restic" => run(self.tool(&["init", "-q", "--repository-version", "2"])),
            "rustic" => run(self.tool(&["init"])),
            "borg" => run(self.tool(&["init", "-e", "repokey-blake2"])),
            _ => {
                run(self.tool(&["init"]));
                let key = self.place.at("key");
                run(self.tool(&["new-key", "-o", key.to_str().unwrap()]));
            }
        }
    }

    fn backup(&mut self) -> Command {
        self.backups += 1;
        let live = self.place.live.to_str().unwrap();
        match self.name {
            "restic" => self.tool(&["backup", "-q", live]),
            "rustic" => self.tool(&["backup", live]),
            "borg" => self.tool(&["create", "-C", "zstd,3", &format!("::n{}", self.backups), live]),
            _ => self.tool(&["put", "-q", "--compression", "zstd:3", &format!("n={}", self.backups), live]),
        }
    }

    fn restore(&self) -> Command {
        let out = self.place.out();
        let target = out.to_str().unwrap();
        match self.name {
            "restic" => self.tool(&["restore", "latest", "-q", "--target", target]),
            "rustic" => self.tool(&["restore", "latest", target]),
            "borg" => {
                let mut command = self.tool(&["extract", &format!("::n{}", self.backups)]);
                command.current_dir(out);
                command
            }
            _ => self.tool(&["restore", "-q", "--into", target, &format!("n={}", self.backups)]),
        }
    }

    fn check(&self) -> Option<Command> {
        match self.name {
            "restic" => Some(self.tool(&["check", "-q", "--read-data"])),
            "rustic" => Some(self.tool(&["check", "--read-data"])),
            "borg" => Some(self.tool(&["check", "--verify-data"])),
            // It has none.
            _ => None,
        }
    }
}

impl Program for Peer {
    fn name(&self) -> &'static str {
        self.name
    }

    fn command(&mut self, step: Step) -> Option<Command> {
        match step {
            Step::First | Step::Again | Step::Churn => Some(self.backup()),
            Step::Restore => Some(self.restore()),
            Step::Check => self.check(),
            Step::Lost => {
                let cache = self.place.at("cache");
                // What borg knows of its repository's identity is no cache; without it, it asks.
                let lost = if self.name == "borg" { cache.join(".cache") } else { cache.clone() };
                std::fs::remove_dir_all(&lost).unwrap();
                std::fs::create_dir_all(&cache).unwrap();
                Some(self.backup())
            }
        }
    }

    fn repository(&self) -> PathBuf {
        self.place.repository()
    }

    fn clear(&self) {
        self.place.clear();
    }
}
