//! A new version of the policies spreads in waves: each is watched, harm halts it, and a person may let it go on.

use std::fs;
use std::path::Path;

use backhaul_tests::{Daemon, Home, TestServer, trees, wait_until};
use serde_json::Value;

/// Due every five seconds.
const OFTEN: &str = "[policy.default]\nperiod = \"5s\"\nspread = \"1s\"\nstanding = { keepalive = \"5s\" }\n\
                     checkin = { when_late = \"60s\", join_jitter = \"1s\" }\n";
/// One after the other, as soon as the one before has shown that it works.
const WAVES: &str = "[rollout]\nwaves = [\"canary\", \"100%\"]\nmin_finishers = 1\nsoak = \"1s\"\n";

struct Fleet {
    server: TestServer,
    dir: tempfile::TempDir,
    homes: Vec<Home>,
    _agents: Vec<Daemon>,
}

impl Fleet {
    /// A canary and two others, protected and linked.
    fn new() -> Self {
        let (server, dir) = (TestServer::with_policy(OFTEN), tempfile::tempdir().unwrap());
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), trees::noise(10_000, 1)).unwrap();
        let join = |name: &str| {
            let home = Home::new();
            server.join(&home, name, &["--initiator", "hybrid"], &[&tree]);
            home
        };
        let homes: Vec<Home> = ["canary", "one", "two"].into_iter().map(join).collect();
        let agents = homes.iter().map(|home| home.start(&["-v", "agent", "run", "--no-listen"])).collect();
        let fleet = Self { server, dir, homes, _agents: agents };
        let first = fleet.newest();
        wait_until("all have the first version and a link", || {
            fleet.versions().iter().all(|(_, has, link)| *has == first && link == "standing")
        });
        fleet
    }

    fn newest(&self) -> u64 {
        self.server.home.json(&["policy", "list"])["version"].as_u64().unwrap()
    }

    fn status(&self) -> Vec<Value> {
        self.server.home.json(&["status"]).as_array().unwrap().clone()
    }

    /// What each client shall have, what its agent keeps to, and how it is linked.
    fn versions(&self) -> Vec<(u64, u64, String)> {
        let number = |row: &Value, key: &str| row[key].as_u64().unwrap();
        let all = self.status();
        all.iter()
            .map(|row| {
                let link = row["link"].as_str().unwrap().to_owned();
                (number(row, "policy_version"), number(row, "terms_version"), link)
            })
            .collect()
    }

    /// Waits until the canary, the first by name, and the others have these versions.
    fn have(&self, canary: u64, others: u64) {
        wait_until(&format!("the canary has {canary}, the others {others}"), || {
            let all = self.versions();
            all[0].0 == canary
                && all[0].1 == canary
                && all[1..].iter().all(|it| (it.0, it.1) == (others, others))
        });
    }

    fn apply(&self, text: &str) -> u64 {
        let file = self.dir.path().join("policy.toml");
        fs::write(&file, text).unwrap();
        self.server.home.json(&["policy", "apply", file.to_str().unwrap()])["version"].as_u64().unwrap()
    }

    /// How the newest version stands.
    fn rollout(&self) -> String {
        self.server.home.json(&["policy", "list"])["rollout"].as_str().unwrap_or_default().to_owned()
    }
}

/// Each backup of a machine fails from now on; its config of before.
fn break_backups(home: &Path) -> String {
    let path = home.join("agent/config.toml");
    let right = fs::read_to_string(&path).unwrap();
    let mut config: toml::Table = right.parse().unwrap();
    let backup = config.entry("backup").or_insert(toml::Table::new().into()).as_table_mut().unwrap();
    backup.insert("before".to_owned(), vec!["/bin/false"].into());
    fs::write(&path, config.to_string()).unwrap();
    right
}

#[test]
fn a_version_waits_for_its_canary_is_halted_by_harm_and_goes_on_when_a_person_says_so() {
    let fleet = Fleet::new();
    let (home, first) = (&fleet.server.home, fleet.newest());
    // A canary that has it and has not run under it holds the others back, for as long as that takes.
    home.run(&["client", "pause", "canary"]).ok();
    wait_until("it does not run", || fleet.status()[0]["why"].as_str().unwrap().contains("paused"));
    let second = fleet.apply(&format!("{OFTEN}limit_upload = \"9MB\"\n{WAVES}"));
    fleet.have(second, first);
    assert!(fleet.rollout().contains("wave 1"), "{}", fleet.rollout());
    home.run(&["client", "resume", "canary"]).ok();
    fleet.have(second, second);
    wait_until("it is through", || fleet.rollout().contains("completed"));

    // The next does harm: nobody else gets it, and the canary goes back.
    let canary = fleet.homes[0].path();
    let right = break_backups(canary);
    let third = fleet.apply(&format!("{OFTEN}limit_upload = \"8MB\"\n{WAVES}"));
    wait_until("it is halted", || fleet.rollout().contains("halted"));
    fleet.server.says(&format!("policy version {third} was halted"));
    fleet.have(second, second);
    let open = home.json(&["alerts"]);
    assert!(open.as_array().unwrap().iter().any(|alert| alert["kind"] == "rollout-halted"), "{open}");

    // Put right, it goes on from where it was.
    fs::write(canary.join("agent/config.toml"), right).unwrap();
    home.run(&["policy", "resume"]).ok();
    wait_until("the canary has it again", || fleet.versions()[0].1 == third);
    home.run(&["client", "run", "canary", "--wait"]).ok();
    fleet.have(third, third);
    wait_until("it is through", || fleet.rollout().contains("completed"));
    let open = home.json(&["alerts"]);
    assert!(!open.as_array().unwrap().iter().any(|alert| alert["kind"] == "rollout-halted"), "{open}");
}

#[test]
fn a_rollout_goes_on_after_a_restart_without_those_who_were_revoked_meanwhile() {
    let mut fleet = Fleet::new();
    let first = fleet.newest();
    fleet.server.home.run(&["client", "pause", "canary"]).ok();
    wait_until("it does not run", || fleet.status()[0]["why"].as_str().unwrap().contains("paused"));
    let second = fleet.apply(&format!("{OFTEN}limit_upload = \"9MB\"\n{WAVES}"));
    fleet.have(second, first);
    fleet.server.stop();
    fleet.server.home.run(&["client", "revoke", "canary"]).ok();
    fleet.server.start();
    // Nobody is left to wait for.
    wait_until("the others have it", || {
        fleet.versions()[1..].iter().all(|(shall, has, _)| (*shall, *has) == (second, second))
    });
    wait_until("it is through", || fleet.rollout().contains("completed"));
}
