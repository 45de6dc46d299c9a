//! Backups that nobody starts.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use backhaul_agent::home::AgentHome;
use backhaul_net::endpoint::Listener;
use backhaul_tests::{Daemon, Home, PATIENCE, TestServer, free_port, trees, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Everybody is due, and one runs at a time.
fn eager() -> String {
    TestServer::due_policy() + "[admission]\nslots = 1\n"
}

fn count(home: &Home, client: &[&str]) -> usize {
    home.json(&[&["snapshots"], client].concat()).as_array().unwrap().len()
}

/// A desktop whose agent listens: the server dials it by itself.
fn dialled(server: &TestServer, tree: &Path) -> (Home, Daemon) {
    let (home, address) = server.listener("desk", &[tree]);
    let mut agent = home.command(&["-vv", "agent", "run", "--listen", &address]);
    // No logind answers, whatever this machine has.
    agent.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
    let agent = Daemon::start(agent);
    wait_until("there is a snapshot", || count(&server.home, &["--client", "desk"]) == 1);
    (home, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_that_has_joined_is_dialled_though_nothing_else_happens() {
    let (server, dir) = (TestServer::with_policy(&eager()), tempfile::tempdir().unwrap());
    let (home, address) = (Home::new(), format!("127.0.0.1:{}", free_port()));
    let code = server.add("desk", &["--initiator", "server", "--address", &address]);
    // The server has seen that.
    tokio::time::sleep(Duration::from_secs(1)).await;
    home.run(&["join", &code, dir.path().to_str().unwrap()]).ok();
    // An agent that does not come by itself, and no command that would touch the fleet.
    let identity = AgentHome::at(home.path()).listener().unwrap();
    let listener = Listener::agent(address.parse().unwrap(), &identity).unwrap();
    let dialled = tokio::time::timeout(PATIENCE, listener.accept()).await;
    assert!(dialled.is_ok_and(|pending| pending.is_some()));
}

#[test]
fn the_server_dials_a_due_client_by_itself_once_a_period() {
    let (server, dir) = (TestServer::with_policy(&eager()), tempfile::tempdir().unwrap());
    let (_home, agent) = dialled(&server, &trees::everything(dir.path()));
    // It asks to stay awake.
    agent.says("no lock of logind");
    wait_until("status says so", || {
        let status = server.home.json(&["status"]);
        (status[0]["state"].as_str(), status[0]["why"].as_str()) == (Some("protected"), Some(""))
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(count(&server.home, &["--client", "desk"]), 1, "one a period");
    // Somebody may always ask for one more.
    server.home.run(&["client", "run", "desk", "--wait"]).ok();
    assert_eq!(count(&server.home, &["--client", "desk"]), 2);
}

#[test]
fn a_desktop_that_is_only_dialled_keeps_to_a_new_policy_from_its_next_run_on() {
    let (server, dir) = (TestServer::with_policy(&eager()), tempfile::tempdir().unwrap());
    let (home, _agent) = dialled(&server, &trees::everything(dir.path()));
    let newer = dir.path().join("newer.toml");
    fs::write(&newer, eager().replace("[admission]", "limit_upload = \"3MB\"\n[admission]")).unwrap();
    let version = server.home.json(&["policy", "apply", newer.to_str().unwrap()])["version"].clone();
    assert_ne!(server.home.json(&["status"])[0]["terms_version"], version, "it does not know yet");
    server.home.run(&["client", "run", "desk", "--wait"]).ok();
    wait_until("it keeps to it", || server.home.json(&["status"])[0]["terms_version"] == version);
    let kept = fs::read_to_string(home.path().join("agent/terms.json")).unwrap();
    assert!(kept.contains("3000000"), "{kept}");
}

#[test]
fn a_laptop_comes_by_itself_when_it_is_due() {
    let (server, dir) = (TestServer::with_policy(&eager()), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let laptop = server.client("laptop", &[&tree]);
    let listen = format!("127.0.0.1:{}", free_port());
    let _agent = laptop.start(&["agent", "run", "--listen", &listen]);
    // Asked as the server's operator: a client that asks without end is turned away.
    wait_until("there is a snapshot", || count(&server.home, &["--client", "laptop"]) == 1);
}

#[test]
fn when_all_slots_are_taken_a_push_waits_on_its_connection_and_hears_its_place() {
    let (server, dir) = (TestServer::with_policy(&eager()), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("file"), "file").unwrap();
    let (first, second) = (server.client("first", &[dir.path()]), server.client("second", &[dir.path()]));
    // It goes on until the second has been heard to wait.
    let mut running = first.command(&["-q", "backup", "--stdin", "--stdin-filename", "stream"]);
    let mut running = running.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stream = running.stdin.take().unwrap();
    wait_until("the first has begun", || server.home.json(&["runs"])[0]["state"] == "running");
    let mut waits = second.command(&["backup"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(waits.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("waiting for a slot: 1 run; 0 before it")), "it did not wait");
    stream.write_all(&trees::noise(12_000_000, 1)).unwrap();
    drop(stream);
    said.for_each(drop);
    assert!(running.wait().unwrap().success() && waits.wait().unwrap().success());
    let runs = server.home.json(&["runs"]);
    let states: Vec<_> = runs.as_array().unwrap().iter().map(|run| run["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["done", "done"], "{runs}");
    assert!(runs[0]["ended_at"].as_str() <= runs[1]["started_at"].as_str(), "one at a time: {runs}");
}

#[test]
fn policies_are_checked_shown_and_applied_whole() {
    let server = TestServer::new();
    let file = server.home.path().join("new.toml");
    let path = file.to_str().unwrap();
    fs::write(&file, "[policy.lab]\nperoid = \"4h\"\n").unwrap();
    let refused = server.home.run(&["policy", "apply", path]).expect(2);
    assert!(refused.err.contains("peroid"), "{}", refused.err);
    server.home.run(&["client", "add", "desk", "--policy", "lab"]).expect(2);
    fs::write(
        &file,
        "[policy.lab]\nperiod = \"4h\"\nwindow = { from = \"08:00\", to = \"18:00\", tz = \"UTC\" }\n",
    )
    .unwrap();
    let dry = server.home.run(&["policy", "apply", path, "--dry-run"]).ok();
    assert!(dry.out.contains("lab: new, every 4h") && dry.out.contains("dry run"), "{}", dry.out);
    server.home.run(&["policy", "show", "lab"]).expect(2);
    server.home.run(&["policy", "apply", path]).ok();
    server.add("desk", &["--policy", "lab"]);
    let shown = server.home.json(&["policy", "show", "lab"]);
    assert_eq!((shown["rpo"].as_str(), shown["clients"][0].as_str()), (Some("6h"), Some("desk")), "{shown}");
    let all = server.home.json(&["policy", "show"]);
    let names: Vec<&str> = all.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["default", "lab"], "{all}");
    let said = server.home.run(&["policy", "show"]).ok().out;
    assert!(said.contains("lab") && said.contains("default"), "{said}");
    let narrow = "[policy.lab]\nspread = \"1m\"\nwindow = { from = \"08:00\", to = \"08:03\", tz = \"UTC\" }\n[admission]\nslots = 1\n";
    fs::write(&file, narrow).unwrap();
    let warned = server.home.run(&["policy", "apply", path, "--dry-run"]).ok();
    assert!(warned.err.contains("all clients (1)") && warned.err.contains("starve"), "{}", warned.err);
    fs::write(&file, "").unwrap();
    let kept = server.home.run(&["policy", "apply", path]).expect(2);
    assert!(kept.err.contains("desk"), "a policy in use cannot go: {}", kept.err);
    server.home.run(&["client", "edit", "desk", "--policy", "default"]).ok();
    server.home.run(&["policy", "apply", path]).ok();
}

#[test]
fn runs_are_followed_as_they_come_until_somebody_has_seen_enough() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("file"), "text").unwrap();
    let client = server.client("laptop", &[dir.path()]);
    client.run(&["backup"]).ok();
    let mut following = server.home.command(&["--json", "runs", "--follow"]);
    let mut following = following.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = || -> (u64, String) {
        let run: serde_json::Value = serde_json::from_str(&told.next().unwrap().unwrap()).unwrap();
        assert_eq!(run["client"], "laptop", "{run}");
        (run["run"].as_u64().unwrap(), run["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(next(), (1, "done".to_owned()), "what was is told first");
    client.run(&["backup"]).ok();
    // It may be seen while it runs.
    let (run, state) = std::iter::repeat_with(next).find(|(_, state)| state != "running").unwrap();
    assert_eq!((run, state.as_str()), (2, "done"));
    kill_process(Pid::from_child(&following), Signal::INT).unwrap();
    let ended = following.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), said.as_str()), (Some(130), "backhaul: interrupted\n"));
}

#[test]
fn explain_says_how_a_client_stands_and_how_it_would_with_another_limit() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("file"), "text").unwrap();
    let client = server.client("laptop", &[dir.path()]);
    client.run(&["backup"]).ok();
    let what_if = |change: &str| server.home.json(&["explain", "laptop", "--what-if", change]);
    wait_until("it would be late", || what_if("rpo=1s")["state"] != "protected");
    assert_eq!(what_if("rpo=1s")["figures"]["rpo"], 1);
    // Nothing of that is kept.
    let explained = server.home.json(&["explain", "laptop"]);
    assert_eq!((&explained["state"], &explained["figures"]["rpo"]), (&"protected".into(), &129_600.into()));
    let said = server.home.run(&["explain", "laptop"]).ok().out;
    assert!(said.contains("recommended") && said.contains("protected; late after 36h"), "{said}");
    for wrong in ["rpo", "rpo=soon", "colour=4h"] {
        let refused = server.home.run(&["explain", "laptop", "--what-if", wrong]).expect(2);
        assert!(refused.err.contains(wrong) && refused.err.contains("say rpo=4h"), "{}", refused.err);
    }
}

/// What is planned of a client for the next hour: how, why, and in how many seconds.
fn planned(server: &TestServer, client: &str) -> Vec<(String, String, i64)> {
    let plan = server.home.json(&["plan", "--until", "1h"]);
    let of = plan.as_array().unwrap().iter().filter(|row| row["client"] == client);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let at = |row: &Value| row["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let left = |row: &Value| at(row).as_second() - jiff::Timestamp::now().as_second();
    of.map(|row| (text(row, "start"), text(row, "why"), left(row))).collect()
}

#[test]
fn a_client_that_is_asked_for_and_is_not_there_is_shown_and_planned_so_though_it_has_its_snapshot() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    client.run(&["backup"]).ok();
    let row = |server: &TestServer| server.home.json(&["status"])[0].clone();
    let is = |server: &TestServer, obstacle: &str| row(server)["obstacle"] == obstacle;
    wait_until("it is protected", || row(&server)["state"] == "protected" && is(&server, "none"));
    assert_eq!(planned(&server, "laptop"), []);
    server.home.run(&["client", "nudge", "laptop"]).ok();
    wait_until("it is waited for", || is(&server, "absent"));
    assert!(row(&server)["why"].as_str().unwrap().contains("has not come"), "{}", row(&server));
    let is_planned = |server: &TestServer| match &planned(server, "laptop")[..] {
        [(start, why, left)] => start == "when it is here" && why == "asked for" && *left <= 0,
        _ => false,
    };
    assert!(is_planned(&server), "{:?}", planned(&server, "laptop"));
    let said = server.home.run(&["plan"]).ok().out;
    let line = said.lines().find(|line| line.contains("laptop")).unwrap();
    assert!(line.starts_with("now") && line.ends_with("asked for"), "{said}");
    // Who asked was told that it is nudged when it comes.
    server.stop();
    assert!(server.home.run(&["plan"]).ok().err.contains("the server is not running"));
    server.start();
    wait_until("it is waited for still", || is(&server, "absent") && is_planned(&server));
    client.run(&["backup"]).ok();
    wait_until("it has come", || is(&server, "none") && row(&server)["why"] == "");
    assert_eq!(planned(&server, "laptop"), []);
}

#[test]
fn what_runs_and_what_is_dialled_in_vain_is_planned_as_the_running_server_means_it() {
    let (server, dir) = (TestServer::with_policy(&eager()), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("file"), "file").unwrap();
    let laptop = server.client("laptop", &[dir.path()]);
    let mut running = laptop.command(&["-q", "backup", "--stdin", "--stdin-filename", "stream"]);
    let mut running = running.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("it has begun", || server.home.json(&["runs"])[0]["state"] == "running");
    assert_eq!(planned(&server, "laptop"), [], "it runs");
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());
    // A stream says nothing of the files: it is due as before.
    wait_until("it is planned", || planned(&server, "laptop").len() == 1);
    let (desk, nobody) = (Home::new(), format!("127.0.0.1:{}", free_port()));
    server.join(&desk, "desk", &["--initiator", "server", "--address", &nobody], &[dir.path()]);
    let row = || {
        let all = server.home.json(&["status"]);
        all.as_array().unwrap().iter().find(|row| row["client"] == "desk").unwrap().clone()
    };
    wait_until("it was dialled in vain", || row()["why"].as_str().unwrap().contains("in vain"));
    let next: jiff::Timestamp = row()["next"].as_str().unwrap().parse().unwrap();
    let next = next.as_second() - jiff::Timestamp::now().as_second();
    match &planned(&server, "desk")[..] {
        [(start, _, left)] => assert!(start == "dial" && (left - next).abs() <= 5, "{left}, not {next}"),
        other => panic!("{other:?}"),
    }
}
