//! Who gets in, and who does not.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backhaul_tests::{Home, TestServer, trees};

#[test]
fn a_code_works_once_and_only_whole() {
    let server = TestServer::new();
    let code = server.add("laptop", &[]);
    let home = Home::new();
    for end in [0, 3, 10, code.len() / 2, code.len() - 1] {
        let refused = home.run(&["join", &code[..end]]).expect(2);
        assert!(refused.err.contains("join code"), "{}", refused.err);
    }
    home.run(&["join", &code]).ok();
    let again = Home::new().run(&["join", &code]).expect(12);
    assert!(again.err.contains("already used"), "{}", again.err);
    let twice = home.run(&["join", &code]).expect(1);
    assert!(twice.err.contains("already joined"), "{}", twice.err);
}

#[test]
fn an_expired_code_is_refused() {
    let mut server = TestServer::new();
    let code = server.add("laptop", &[]);
    server.stop();
    let db = rusqlite::Connection::open(server.home.path().join("server/fleet.sqlite")).unwrap();
    db.execute("UPDATE invitations SET expires_at = 1000", []).unwrap();
    drop(db);
    server.start();
    let refused = Home::new().run(&["join", &code]).expect(12);
    assert!(refused.err.contains("expired"), "{}", refused.err);
}

#[test]
fn a_server_of_another_authority_is_not_told_anything() {
    let mut first = TestServer::new();
    let code = first.add("laptop", &[]);
    first.stop();
    let listen = format!("127.0.0.1:{}", first.port);
    let second = Home::new();
    second.run(&["server", "init", "--listen", &listen, "--name", "127.0.0.1"]).ok();
    let _daemon = second.start(&["server", "run"]);
    let refused = Home::new().run(&["join", &code]).expect(12);
    assert!(refused.err.contains("another authority"), "{}", refused.err);
}

#[test]
fn revoking_ends_an_open_session_within_five_seconds() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("big"), trees::noise(80_000_000, 5)).unwrap();
    let client = server.client("laptop", &[dir.path()]);
    client.run(&["backup"]).ok();
    // A dump that nobody reads keeps its session open: the pipe is full and more is to come.
    let what = format!("latest:{}/big", dir.path().display());
    let mut open = client.command(&["dump", &what]);
    let mut open = open.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = open.stdout.take().unwrap();
    pipe.read_exact(&mut [0; 1_000]).unwrap();
    let start = Instant::now();
    server.home.run(&["client", "revoke", "laptop"]).ok();
    std::thread::sleep(Duration::from_secs(3));
    std::io::copy(&mut pipe, &mut std::io::sink()).unwrap();
    let status = open.wait().unwrap();
    assert!(!status.success() && start.elapsed() < Duration::from_secs(60), "{status} {:?}", start.elapsed());
    let refused = client.run(&["backup"]).expect(12);
    assert!(refused.err.contains("revoked"), "{}", refused.err);
    let snapshots = server.home.json(&["snapshots", "--client", "laptop"]);
    assert_eq!(snapshots.as_array().unwrap().len(), 1, "its snapshots stay");
}

#[test]
fn names_and_homes_are_checked() {
    let server = TestServer::new();
    for name in ["", "-a", "a b", "../up", &"x".repeat(64)] {
        server.home.run(&["client", "add", "--", name]).expect(2);
    }
    server.add("desk", &[]);
    let unknown = server.home.run(&["client", "show", "nobody"]).expect(1);
    assert!(unknown.err.contains("client list"), "{}", unknown.err);
    Home::new().run(&["backup", "/etc"]).expect(10);
    Home::new().run(&["client", "list"]).expect(10);
    Home::new().run(&["snapshots"]).expect(10);
}

#[test]
fn a_client_that_lost_its_disk_joins_anew_under_its_name_and_keeps_its_history() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let old = server.client("laptop", &[&tree]);
    old.run(&["backup"]).ok();
    server.home.run(&["client", "add", "laptop"]).expect(1);
    server.home.run(&["client", "revoke", "laptop"]).ok();
    let lost_code = server.add("laptop", &[]);
    let code = server.add("laptop", &[]);
    Home::new().run(&["join", &lost_code]).expect(12);
    let new = Home::new();
    new.run(&["join", &code, tree.to_str().unwrap()]).ok();
    let report = new.json(&["backup"]);
    assert!(report["bytes_sent"].as_u64().unwrap() < 300_000, "{report}");
    assert_eq!(new.json(&["snapshots"]).as_array().unwrap().len(), 2);
    old.run(&["backup"]).expect(12);
}
