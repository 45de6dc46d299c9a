//! Damage to a vault: found, named, and survived as far as it can be.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use backhaul_tests::{TestServer, trees};

#[test]
fn a_deleted_catalog_comes_back_the_same() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let client = server.client("laptop", &[&tree]);
    client.run(&["backup"]).ok();
    let before = client.json(&["snapshots"]);
    server.stop();
    let vault = server.home.path().join("server/vaults/main");
    fs::remove_file(vault.join("catalog.sqlite")).unwrap();
    fs::remove_dir_all(vault.join("index")).unwrap();
    let refused = server.home.run(&["server", "run"]).expect(13);
    assert!(refused.err.contains("--rebuild-index"), "{}", refused.err);
    let rebuilt = server.home.json(&["check", "--rebuild-index", "--read-data"]);
    assert_eq!(rebuilt["damage"].as_array().unwrap().len(), 0, "{rebuilt}");
    server.start();
    assert_eq!(client.json(&["snapshots"]), before);
    // The index is of a new generation: the client's state is void, and nothing is sent again.
    let again = client.json(&["backup"]);
    assert!(again["bytes_sent"].as_u64().unwrap() < 300_000, "{again}");
}

#[test]
fn a_truncated_catalog_is_named_not_guessed_at() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    client.run(&["backup"]).ok();
    server.stop();
    let path = server.home.path().join("server/vaults/main/catalog.sqlite");
    let bytes = fs::read(&path).unwrap();
    for len in [0, 100, 5_000, bytes.len() / 2] {
        fs::write(&path, &bytes[..len.min(bytes.len())]).unwrap();
        let refused = server.home.run(&["server", "run"]).expect(13);
        assert!(refused.err.contains("--rebuild-index"), "{len}: {}", refused.err);
    }
    server.home.run(&["check", "--rebuild-index"]).ok();
    server.start();
    assert_eq!(client.json(&["snapshots"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_flipped_byte_is_found_and_costs_only_what_it_touches() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let client = server.client("laptop", &[&tree]);
    client.run(&["backup"]).ok();
    server.stop();
    let largest = server.packs().into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, &bytes).unwrap();
    server.home.run(&["check"]).ok();
    let found = server.home.run(&["--json", "check", "--read-data"]).expect(13).json();
    assert!(!found["damage"].as_array().unwrap().is_empty());
    assert_eq!(found["snapshots_affected"].as_array().unwrap().len(), 1, "{found}");
    server.start();
    let out = tempfile::tempdir().unwrap();
    let restored =
        client.run(&["--json", "restore", "latest", "-t", out.path().to_str().unwrap()]).expect(3).json();
    let (files, errors) = (restored["files"].as_u64().unwrap(), restored["errors"].as_array().unwrap());
    assert!(files > 300 && !errors.is_empty(), "{restored}");
}

#[test]
fn a_lost_pack_costs_what_was_in_it_until_the_client_sends_it_again() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let client = server.client("laptop", &[&tree]);
    client.run(&["backup"]).ok();
    server.stop();
    let data = server.packs().into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    fs::remove_file(data).unwrap();
    let rebuilt = server.home.run(&["--json", "check", "--rebuild-index"]).expect(13).json();
    assert_eq!(rebuilt["snapshots_affected"].as_array().unwrap().len(), 1, "{rebuilt}");
    server.start();
    // What was not in the pack comes back; the rest is named.
    let out = tempfile::tempdir().unwrap();
    let restored =
        client.run(&["--json", "restore", "latest", "-t", out.path().to_str().unwrap()]).expect(3).json();
    assert!(!restored["errors"].as_array().unwrap().is_empty(), "{restored}");
    let inline = out.path().join(tree.strip_prefix("/").unwrap()).join("tiny");
    assert_eq!(fs::read(inline).unwrap(), b"tiny");
    // The next backup sends it again, which heals the snapshot that lost it.
    client.run(&["backup"]).ok();
    assert_eq!(client.json(&["snapshots"]).as_array().unwrap().len(), 2);
    let whole = tempfile::tempdir().unwrap();
    client.run(&["restore", "latest", "-t", whole.path().to_str().unwrap()]).ok();
    trees::assert_equal(&tree, &whole.path().join(tree.strip_prefix("/").unwrap()));
    server.stop();
    server.home.run(&["check", "--read-data"]).ok();
    server.home.run(&["check", "--rebuild-index", "--read-data"]).ok();
}

#[test]
fn a_lost_snapshot_keeps_its_place_and_its_damage() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    client.run(&["backup"]).ok();
    server.stop();
    server.packs().into_iter().for_each(|pack| fs::remove_file(pack).unwrap());
    server.home.run(&["check", "--rebuild-index"]).expect(13);
    server.start();
    client.run(&["backup"]).ok();
    server.stop();
    let report = server.home.run(&["check"]).expect(13);
    assert!(report.out.contains("0000000001.snap"), "{}", report.out);
}

#[test]
fn a_damaged_manifest_locks_nobody_out() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    client.run(&["backup"]).ok();
    client.run(&["backup"]).ok();
    server.stop();
    let manifests = trees::files(&server.home.path().join("server/vaults/main/snaps"));
    fs::write(&manifests[0], b"BHSN").unwrap();
    server.home.run(&["check", "--rebuild-index"]).expect(13);
    server.start();
    assert_eq!(client.json(&["snapshots"]).as_array().unwrap().len(), 1);
}
