//! The brake, where something comes between a run and its judgement.

use std::fs;
use std::path::Path;
use std::time::Duration;

use backhaul_tests::{Home, TestServer, trees};

/// Other contents in all files.
fn rewrite(tree: &Path, seed: u64) {
    for number in 0..60 {
        fs::write(tree.join(format!("{number:02}.txt")), trees::noise(40_000, seed + number)).unwrap();
    }
}

fn calm_days(client: &Home, tree: &Path, count: usize) {
    for number in 0..count {
        fs::write(tree.join("letter"), format!("version {number}")).unwrap();
        client.run(&["backup"]).ok();
    }
}

fn holds(server: &TestServer) -> bool {
    let status = server.home.json(&["status"]);
    status[0]["brake"].as_str().is_some_and(|why| why.contains("other contents"))
}

/// The database refuses the brake when the run is judged, or the server is killed between the snapshot and that.
#[test]
fn a_run_that_could_not_be_judged_is_judged_before_anything_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut server =
        TestServer::with_policy(&format!("{}keep = {{ last = 1 }}\n", TestServer::quiet_policy()));
    let client = server.client("desk", &[dir.path()]);
    rewrite(dir.path(), 0);
    calm_days(&client, dir.path(), 5);
    let path = server.home.path().join("server/fleet.sqlite");
    let database = |sql: &str| {
        let fleet = rusqlite::Connection::open(&path).unwrap();
        fleet.busy_timeout(Duration::from_secs(10)).unwrap();
        fleet.execute_batch(sql).unwrap();
    };
    database("CREATE TRIGGER refused BEFORE INSERT ON brakes BEGIN SELECT RAISE(ABORT, 'no room'); END");
    rewrite(dir.path(), 1_000);
    client.run(&["backup"]).ok();
    assert!(!holds(&server));
    for args in [&["forget", "--policy"][..], &["prune"]] {
        let refused = server.home.run(args).expect(1);
        assert!(refused.err.contains("no room"), "{}", refused.err);
    }
    database("DROP TRIGGER refused");
    let held = server.home.json(&["forget", "--policy"]);
    assert_eq!((held["forgotten"].as_u64(), held["held"].as_u64()), (Some(0), Some(1)), "{held}");
    assert!(holds(&server));

    // As a kill leaves it. The next run does not hide the one before.
    let last = "DELETE FROM profiles WHERE sequence = (SELECT max(sequence) FROM profiles);
                DELETE FROM brakes; DELETE FROM alerts WHERE kind = 'brake';";
    database(last);
    calm_days(&client, dir.path(), 1);
    assert!(holds(&server));
    server.stop();
    database(&last.repeat(2));
    server.start();
    assert!(holds(&server), "from the start on");
    assert_eq!(server.home.json(&["alerts"])[0]["kind"], "brake");
}
