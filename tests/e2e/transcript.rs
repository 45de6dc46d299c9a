//! After the connection, nothing depends on who dialled: the frames of a pull are those of a push.

use std::process::Stdio;

use backhaul_tests::{Home, TestServer, free_port, trees};

/// The frames of an agent's log: sent, and received. `Durable` comes by the clock, so it is left out.
fn frames(log: &str) -> (Vec<String>, Vec<String>) {
    // An agent that waits to be dialled asks now and then whether it is due: that is another session.
    let backup = log.lines().skip_while(|line| !line.contains("frame > Hello Backup"));
    let of = |arrow: &str| {
        let lines =
            backup.clone().filter_map(|line| line.split_once(arrow).map(|(_, frame)| frame.to_owned()));
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
    let (home, address) = (Home::new(), format!("127.0.0.1:{}", free_port()));
    server.join(&home, "desk", &["--initiator", "server", "--address", &address], &[&tree]);
    let mut agent = home.command(&["agent", "run", "--listen", &address]);
    let mut agent = agent.env(trace.0, trace.1).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    server.home.run(&["client", "run", "desk", "--wait"]).ok();
    agent.kill().unwrap();
    let pulled = agent.wait_with_output().unwrap();
    let pulled = frames(&String::from_utf8_lossy(&pulled.stderr));

    assert!(pushed.0.len() >= 4 && pushed.1.len() >= 3, "{pushed:?}");
    assert_eq!(pushed, pulled);
}
