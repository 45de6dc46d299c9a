//! Two machines with one identity: the home of one was copied to the other.

use std::process::Command;

use backhaul_tests::{Home, TestServer, trees, wait_until};

/// Everybody is due, once a day.
fn daily() -> String {
    TestServer::due_policy()
        + "standing = { keepalive = \"5s\" }\ncheckin = { when_late = \"60s\", join_jitter = \"1s\" }\n"
}

fn snapshots(home: &Home) -> Vec<String> {
    let rows = home.json(&["snapshots"]);
    rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_copied_home_is_found_out_named_and_kept_out_and_the_first_goes_on() {
    let (server, dir) = (TestServer::with_policy(&daily()), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let (first, second) = (Home::new(), Home::new());
    server.join(&first, "laptop", &["--initiator", "hybrid"], &[&tree]);
    let first_agent = first.start(&["-v", "agent", "run", "--no-listen"]);
    // Asked as the server's operator: a client that asks without end is turned away.
    let made = || server.home.json(&["snapshots", "--client", "laptop"]).as_array().unwrap().len();
    wait_until("it has its snapshot", || made() == 1);
    wait_until("it is linked", || server.home.json(&["status"])[0]["link"] == "standing");

    let (from, to) = (first.path().join("agent"), second.path().join("agent"));
    assert!(Command::new("cp").arg("-a").args([&from, &to]).status().unwrap().success());
    // Until the first is heard again the copy may be that machine, restarted.
    let copy = second.start(&["-v", "agent", "run", "--no-listen"]);
    wait_until("the copy is found out", || {
        let alerts = server.home.json(&["alerts"]);
        alerts.as_array().unwrap().iter().any(|alert| alert["kind"] == "clone")
    });
    let alerts = server.home.json(&["alerts"]);
    let alert = alerts.as_array().unwrap().iter().find(|alert| alert["kind"] == "clone").unwrap();
    assert_eq!(alert["client"].as_str(), Some("laptop"), "{alert}");
    let text = alert["text"].as_str().unwrap();
    assert!(text.contains("two machines use the identity of laptop") && text.contains("join anew"), "{text}");
    copy.says("this machine has a copy of the identity of laptop");
    assert!(copy.said().contains("client add") && copy.said().contains("join anew"), "{}", copy.said());
    wait_until("the first is linked", || server.home.json(&["status"])[0]["link"] == "standing");

    let refused = second.run(&["backup"]);
    assert!(refused.code != 0 && refused.err.contains("copy of the identity"), "{refused:?}");
    first.run(&["backup"]).ok();
    assert_eq!(snapshots(&first).len(), 2);
    // What was saved can be read by whoever has the key.
    assert_eq!(snapshots(&first), snapshots(&second));
    let out = tempfile::tempdir().unwrap();
    first.run(&["restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    trees::assert_equal(&tree, &out.path().join(tree.strip_prefix("/").unwrap()));
    let told = copy.said().matches("this machine has a copy of the identity").count();
    assert_eq!(told, 1, "it stays away for as long as it was told: {}", copy.said());
    assert!(!first_agent.said().contains("has a copy of the identity"), "{}", first_agent.said());
}
