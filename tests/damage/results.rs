//! What a check has found of a pack is written down, and shown.

use std::fs;

use backhaul_tests::{TestServer, trees};
use serde_json::Value;

/// What `check --status` says of packs that were mended, and that are damaged, in JSON and in words; and what is lost.
fn stored(server: &TestServer) -> (u64, u64, u64) {
    let status: Value = server.home.json(&["check", "--status"]);
    let count = |name: &str| status[name].as_u64().unwrap();
    let (mended, damaged, lost) = (count("mended"), count("damaged"), count("lost"));
    let words = server.home.run(&["check", "--status"]).ok().out;
    let line =
        format!("damaged: {damaged} packs; mended when they were last read: {mended}; lost: {lost} objects");
    assert!(words.lines().any(|found| found == line), "{words}");
    (mended, damaged, lost)
}

#[test]
fn what_was_mended_and_what_stayed_damaged_is_shown_until_it_is_read_again() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("file"), trees::noise(600_000, 1)).unwrap();
    let client = server.client("laptop", &[dir.path()]);
    client.run(&["backup"]).ok();
    server.stop();
    let config = server.home.path().join("server/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[scrub]\ncycle = \"off\"\n")).unwrap();
    let largest = server.packs().into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let whole = fs::read(&largest).unwrap();
    let damage = |range: std::ops::Range<usize>| {
        let mut bytes = whole.clone();
        bytes[range].iter_mut().for_each(|byte| *byte ^= 0xff);
        fs::write(&largest, bytes).unwrap();
    };
    server.home.run(&["check", "--read-data"]).ok();
    assert_eq!(stored(&server), (0, 0, 0));
    // Within parity: one that only looks leaves it damaged.
    damage(9_000..9_001);
    server.home.run(&["check", "--read-data"]).expect(13);
    assert_eq!(stored(&server), (0, 1, 0));
    let repaired = server.home.json(&["check", "--read-data", "--repair"]);
    assert!(repaired["damage"][0]["repaired"].as_str().unwrap().contains("parity"), "{repaired}");
    assert!(fs::read(&largest).unwrap() == whole);
    assert_eq!(stored(&server), (1, 0, 0));
    server.home.run(&["check", "--read-data"]).ok();
    assert_eq!(stored(&server), (0, 0, 0), "it was read again, and is whole");
    // Beyond it.
    damage(9_000..400_000);
    server.home.run(&["check", "--read-data"]).expect(13);
    assert_eq!(stored(&server), (0, 1, 0));
    // What could be read of it is in another pack; what could not is lost, until it comes again.
    server.home.run(&["check", "--read-data", "--repair"]).expect(13);
    let (mended, damaged, lost) = stored(&server);
    assert!((mended, damaged) == (0, 0) && lost > 0, "{mended} {damaged} {lost}");
    server.start();
    client.run(&["backup"]).ok();
    server.home.run(&["check", "--read-data"]).ok();
    assert_eq!(stored(&server), (0, 0, 0));
}
