//! After the connection, nothing depends on who dialled: the frames of a pull are those of a push.

use backhaul_tests::{Daemon, TestServer, trees};

/// The frames of the one session in an agent's log: sent, and received. `Durable` comes by the clock, so it is left out.
fn frames(log: &str) -> (Vec<String>, Vec<String>) {
    assert_eq!(log.matches("frame > Hello").count(), 1, "{log}");
    let of = |arrow: &str| {
        let lines = log.lines().filter_map(|line| line.split_once(arrow).map(|(_, frame)| frame.to_owned()));
        // When something is durable depends on the disk; whether the terms are news, on an earlier visit.
        lines.filter(|frame| !frame.starts_with("Durable") && frame != "Applied").collect()
    };
    (of("frame > "), of("frame < "))
}

#[test]
fn the_transcript_is_the_same_whoever_dialled() {
    let dir = tempfile::tempdir().unwrap();
    let tree = trees::everything(dir.path());
    // Each server's vault cuts big files elsewhere: here are none.
    for big in ["huge", "zeroes", "deep/huge-too"] {
        std::fs::remove_file(tree.join(big)).unwrap();
    }
    let trace = ("RUST_LOG", "backhaul_agent=trace");

    let server = TestServer::new();
    let client = server.client("desk", &[&tree]);
    let pushed = client.command(&["backup"]).env(trace.0, trace.1).output().unwrap();
    let pushed = frames(&String::from_utf8_lossy(&pushed.stderr));

    let server = TestServer::new();
    // One that cannot come by itself, before the dial or after it: that would be another session.
    let (home, address) = server.listener("desk", &[&tree]);
    let mut agent = home.command(&["agent", "run", "--listen", &address]);
    agent.env(trace.0, trace.1);
    let agent = Daemon::start(agent);
    server.home.run(&["client", "run", "desk", "--wait"]).ok();
    // The server is done a moment before its agent has said goodbye.
    agent.says("frame > End");
    let pulled = frames(&agent.terminate());

    assert!(pushed.0.len() >= 4 && pushed.1.len() >= 3, "{pushed:?}");
    assert_eq!(pushed, pulled);
}
