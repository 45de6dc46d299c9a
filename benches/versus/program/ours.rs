//! Backhaul: a server and its client as processes of their own, over QUIC on loopback.

use std::path::PathBuf;
use std::process::Command;

use backhaul_tests::{Home, TestServer};

use super::{OURS, Place, Program};
use crate::Step;

pub struct Backhaul {
    place: Place,
    server: TestServer,
    client: Home,
}

impl Backhaul {
    pub fn new(place: Place) -> Self {
        let server = TestServer::new();
        let client = server.client("bench", &[&place.live]);
        Self { place, server, client }
    }

    /// What this client remembers of its last backup.
    fn forget_state(&self) {
        let state = self.client.path().join("agent/state");
        if state.exists() {
            std::fs::remove_dir_all(state).unwrap();
        }
    }
}

impl Program for Backhaul {
    fn name(&self) -> &'static str {
        OURS
    }

    fn command(&mut self, step: Step) -> Option<Command> {
        let backup = ["-q", "backup", "--still", "off"];
        Some(match step {
            Step::First | Step::Again | Step::Churn => self.client.command(&backup),
            Step::Restore => {
                let what = format!("latest:{}", self.place.live.display());
                let out = self.place.out();
                self.client.command(&["-q", "restore", &what, "-t", out.to_str().unwrap()])
            }
            Step::Check => self.server.home.command(&["-q", "check", "--read-data"]),
            Step::Lost => {
                self.forget_state();
                self.client.command(&backup)
            }
        })
    }

    fn repository(&self) -> PathBuf {
        self.server.home.path().join("server/vaults/main")
    }

    fn server(&self) -> Option<u32> {
        self.server.pid()
    }

    fn clear(&self) {
        self.place.clear();
    }
}
