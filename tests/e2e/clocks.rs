//! Machines whose clock is years off: the server's clock counts, and nobody's history is harmed.

use backhaul_tests::clocks::off_by;
use backhaul_tests::{Daemon, Home, TestServer, trees, wait_until};
use serde_json::Value;

/// Everybody is due, once a day.
fn daily() -> String {
    TestServer::due_policy()
        + "standing = { keepalive = \"5s\" }\ncheckin = { when_late = \"60s\", join_jitter = \"1s\" }\n"
}

fn status(server: &TestServer) -> Value {
    server.home.json(&["status"])[0].clone()
}

#[test]
fn a_client_that_lives_in_the_future_is_backed_up_once_a_day_by_the_servers_clock() {
    let (server, dir) = (TestServer::with_policy(&daily()), tempfile::tempdir().unwrap());
    let (tree, laptop) = (trees::everything(dir.path()), Home::new());
    server.join(&laptop, "laptop", &["--initiator", "hybrid"], &[&tree]);
    let Some(agent) = off_by(3 * 365, laptop.command(&["-v", "agent", "run", "--no-listen"])) else { return };
    let agent = Daemon::start(agent);
    wait_until("it is protected and linked", || {
        let row = status(&server);
        row["state"] == "protected" && row["link"] == "standing"
    });
    server.says("its clock is 1095d ahead");
    let runs = server.home.json(&["runs"]);
    assert_eq!(runs.as_array().unwrap().len(), 1, "no run after run: {runs}");
    let year = |text: &Value| text.as_str().unwrap()[..4].parse::<i64>().unwrap();
    let this_year = year(&runs[0]["started_at"]);
    let plan = server.home.json(&["plan", "--until", "48h"]);
    assert!(plan.as_array().unwrap().iter().any(|row| row["client"] == "laptop"), "{plan}");
    let snapshots = laptop.json(&["snapshots"]);
    assert!((this_year - year(&snapshots[0]["time"])).abs() <= 1, "{snapshots}");
    agent.terminate();

    // Put right, it goes on where it was: the next snapshot is newer, and nothing is read twice.
    laptop.run(&["backup"]).ok();
    let snapshots = laptop.json(&["snapshots"]);
    assert_eq!(snapshots.as_array().unwrap().len(), 2, "{snapshots}");
    assert_eq!(status(&server)["state"], "protected");
}

#[test]
fn a_client_that_lives_in_the_past_is_told_that_its_clock_is_wrong_and_comes_when_it_is_right() {
    let (server, dir) = (TestServer::with_policy(&daily()), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let laptop = server.client("laptop", &[&tree]);
    let Some(mut backup) = off_by(-20 * 365, laptop.command(&["backup"])) else { return };
    let output = backup.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("clock"), "{said}");
    assert_eq!(server.home.json(&["snapshots", "--client", "laptop"]).as_array().unwrap().len(), 0);
    laptop.run(&["backup"]).ok();
    assert_eq!(status(&server)["state"], "protected");
}
