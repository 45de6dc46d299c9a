//! A night of pulls and a morning of joins: one server and more agent processes than it has slots.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backhaul_tests::{Daemon, Home, TestServer, free_port, trees, wait_until};
use serde_json::Value;

/// Everybody is due, six at once.
fn policy() -> String {
    TestServer::due_policy()
        + "checkin = { join_jitter = \"1s\" }\n[admission]\nslots = 6\nper_vault = { main = 5 }\n"
}
const DESKS: usize = 30;
const LAPTOPS: usize = 24;

fn source(dir: &Path, name: &str, seed: u64) -> PathBuf {
    let root = dir.join(name);
    fs::create_dir(&root).unwrap();
    // Something of its own, and something that all have.
    fs::write(root.join("own"), trees::noise(300_000, seed)).unwrap();
    fs::write(root.join("shared"), trees::noise(300_000, 0)).unwrap();
    root
}

#[derive(Default)]
struct Watch {
    running_max: usize,
    said: BTreeSet<String>,
    looks: usize,
    /// Clients whose planned start was compared with what status says.
    compared: usize,
}

/// Every so many looks the plan is held against them.
const PLAN_EVERY: usize = 5;

impl Watch {
    /// Looks at what the server says right now, and holds it against itself.
    fn look(&mut self, server: &Home) -> Value {
        let status = server.json(&["status"]);
        let all = status.as_array().unwrap();
        let running = all.iter().filter(|row| matches!(row["link"].as_str(), Some("push" | "dial"))).count();
        self.running_max = self.running_max.max(running);
        for row in all {
            let (state, why) = (row["state"].as_str().unwrap(), row["why"].as_str().unwrap());
            assert!(state == "protected" || !why.is_empty(), "nobody waits without a reason: {row}");
            self.said.insert(why.split(':').next().unwrap().to_owned());
        }
        self.looks += 1;
        if self.looks.is_multiple_of(PLAN_EVERY) {
            self.compare(server, &status);
        }
        status
    }

    /// Nobody is left out of the plan, and it agrees with status, which is a moment behind what has just begun.
    fn compare(&mut self, server: &Home, before: &Value) {
        let mut wrong = self.misplanned(server, before);
        for _ in 0..5 {
            if wrong.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
            let again = self.misplanned(server, &server.json(&["status"]));
            wrong.retain(|client, _| again.contains_key(client));
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Clients that have not changed while plan and status were asked, and of which they say different things.
    fn misplanned(&mut self, server: &Home, before: &Value) -> BTreeMap<String, String> {
        let mut wrong = BTreeMap::new();
        let plan = server.json(&["plan", "--until", "48h"]);
        let (after, now) = (server.json(&["status"]), jiff::Timestamp::now().as_second());
        let rows = |status: &Value| -> Vec<Value> { status.as_array().unwrap().clone() };
        let second = |at: &Value| at.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
        for (before, after) in rows(before).iter().zip(rows(&after)) {
            let same = ["client", "link", "state", "next", "why"].iter().all(|key| before[key] == after[key]);
            let runs = matches!(after["link"].as_str(), Some("push" | "dial"));
            if !same || runs || !after["next"].is_string() || after["why"] == "being dialled" {
                continue;
            }
            let of = plan.as_array().unwrap().iter().filter(|row| row["client"] == after["client"]);
            // Who waits for a slot starts when there is one: thirty runs, five at once, each of five minutes where none was
            // measured.
            let next = second(&after["next"]).max(now);
            let planned = of.map(|row| second(&row["at"])).min();
            if planned.is_none_or(|at| !(next - 60..next + 2_400).contains(&at)) {
                let said = format!("status says {after}, planned in {:?} s", planned.map(|at| at - now));
                wrong.insert(after["client"].to_string(), said);
            }
            self.compared += 1;
        }
        wrong
    }
}

fn protected(status: &Value) -> usize {
    status.as_array().unwrap().iter().filter(|row| row["state"] == "protected").count()
}

#[test]
fn a_night_of_pulls_and_a_morning_of_joins_protect_everybody_within_the_bounds() {
    // The files and the agents of a fleet, on one machine.
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::new();
    let mut agents: Vec<Daemon> = Vec::new();
    let mut homes = Vec::new();
    for n in 0..DESKS {
        let (home, address) = (Home::new(), format!("127.0.0.1:{}", free_port()));
        let tree = source(dir.path(), &format!("desk-{n}"), 1_000 + n as u64);
        server.join(&home, &format!("desk-{n}"), &["--initiator", "server", "--address", &address], &[&tree]);
        agents.push(home.start(&["agent", "run", "--listen", &address]));
        homes.push(home);
    }
    wait_until("every desktop is there", || {
        let status = server.home.json(&["status"]);
        status.as_array().unwrap().iter().all(|row| row["seen"].is_string())
    });
    let night = dir.path().join("night.toml");
    fs::write(&night, policy()).unwrap();
    server.home.run(&["policy", "apply", night.to_str().unwrap()]).ok();
    let mut watch = Watch::default();
    wait_until("every desktop is protected", || protected(&watch.look(&server.home)) == DESKS);
    // All laptops appear at once.
    for n in 0..LAPTOPS {
        let home = Home::new();
        let tree = source(dir.path(), &format!("laptop-{n}"), 2_000 + n as u64);
        server.join(&home, &format!("laptop-{n}"), &["--initiator", "hybrid"], &[&tree]);
        homes.push(home);
    }
    agents.extend(homes[DESKS..].iter().map(|home| home.start(&["agent", "run", "--no-listen"])));
    wait_until("every laptop is protected", || protected(&watch.look(&server.home)) == DESKS + LAPTOPS);
    assert!(watch.compared > DESKS, "{} were compared with the plan", watch.compared);
    assert!(watch.running_max <= 5, "never more than the vault takes: {}", watch.running_max);
    let runs = server.home.json(&["runs", "--limit", "1000"]);
    let runs = runs.as_array().unwrap();
    assert!(runs.iter().all(|run| run["state"] == "done"), "{runs:?}");
    assert_eq!(runs.len(), DESKS + LAPTOPS, "one run each");
    let by = |trigger: &str| runs.iter().filter(|run| run["trigger"] == trigger).count();
    assert_eq!(by("dialled"), DESKS, "every desktop, and no laptop: {runs:?}");
    assert_eq!(by("join") + by("timer"), LAPTOPS, "{runs:?}");
    assert_bounded(runs);
    // Links that stand are shown, and one nudge starts one run.
    wait_until("every laptop is linked", || {
        let status = server.home.json(&["status"]);
        status.as_array().unwrap().iter().filter(|row| row["link"] == "standing").count() == LAPTOPS
    });
    server.home.run(&["client", "run", "laptop-0", "laptop-1", "--wait"]).ok();
    let newest = server.home.json(&["runs", "--client", "laptop-0"]);
    assert_eq!(newest[1]["trigger"], "nudge", "{newest}");
    // What is planned for tomorrow: each once, nobody today.
    let plan = server.home.json(&["plan", "--until", "48h"]);
    let planned: BTreeSet<&str> =
        plan.as_array().unwrap().iter().map(|row| row["client"].as_str().unwrap()).collect();
    assert_eq!(planned.len(), DESKS + LAPTOPS, "{plan}");
}

/// At no second were more runs open than the vault takes.
fn assert_bounded(runs: &[Value]) {
    let edge = |run: &Value, key: &str| run[key].as_str().unwrap().to_owned();
    for run in runs {
        let at = edge(run, "started_at");
        let open = runs.iter().filter(|other| edge(other, "started_at") < at && edge(other, "ended_at") > at);
        assert!(open.count() < 5, "too many at {at}");
    }
}

#[test]
fn a_server_that_is_killed_loses_no_grant_and_doubles_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = TestServer::with_policy(&policy());
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for n in 0..200 {
        fs::write(tree.join(format!("{n}")), trees::noise(1_000_000, n)).unwrap();
    }
    let laptop = server.client("laptop", &[&tree]);
    let _agent = laptop.start(&["agent", "run", "--no-listen"]);
    wait_until("some is there", || server.vault_bytes() > 40_000_000);
    server.kill();
    std::thread::sleep(Duration::from_millis(300));
    server.start();
    wait_until("the run is over", || {
        server.home.json(&["runs"]).as_array().unwrap().iter().all(|run| run["state"] == "done")
    });
    let runs = server.home.json(&["runs"]);
    assert_eq!(runs.as_array().unwrap().len(), 1, "the same run went on: {runs}");
    assert_eq!(server.home.json(&["snapshots", "--client", "laptop"]).as_array().unwrap().len(), 1);
}
