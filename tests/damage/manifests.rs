//! Manifests that somebody has edited, or that are of another time, under a checksum that is right.

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_store::manifest::Manifest;
use backhaul_tests::{Home, TestServer, trees};
use serde_json::Value;

/// A server that has stopped, with two snapshots of a laptop, and the manifest of the second and its copy.
fn two() -> (TestServer, Home, PathBuf, PathBuf, tempfile::TempDir) {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    for number in 0..2 {
        fs::write(dir.path().join("file"), trees::noise(20_000, number)).unwrap();
        client.run(&["backup"]).ok();
    }
    server.stop();
    let vault = server.home.path().join("server/vaults/main");
    let manifest = trees::files(&vault.join("snaps")).into_iter().max().unwrap();
    let copy = vault.join("copies").join(manifest.strip_prefix(vault.join("snaps")).unwrap());
    (server, client, manifest, copy, dir)
}

/// Edits a manifest and gives it a checksum that is right.
fn edit(path: &Path, change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    let mut manifest = Manifest::decode(&fs::read(path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(path, manifest.encode()).unwrap();
    manifest.encode()
}

fn damage(document: &Value) -> String {
    document["damage"].to_string()
}

#[test]
fn a_manifest_of_another_time_gives_way_to_its_copy_when_everything_is_made_anew() {
    let (mut server, client, manifest, copy, _dir) = two();
    let (whole, first) = (fs::read(&manifest).unwrap(), manifest.with_file_name("0000000001.snap"));
    server.start();
    let before = client.json(&["snapshots"]);
    server.stop();
    let older = Manifest::decode(&fs::read(&first).unwrap()).unwrap();
    let edited = edit(&manifest, |manifest| *manifest = Manifest { sequence: 2, ..older });
    let named = server.home.run(&["--json", "check", "--rebuild-index"]).expect(13).json();
    assert!(damage(&named).contains("0000000002.snap") && named["rebuilt"]["snapshots"] == 2, "{named}");
    let repaired = server.home.json(&["check", "--repair"]);
    assert!(repaired["sound"] == true && damage(&repaired).contains("from its copy"), "{repaired}");
    assert!(fs::read(&manifest).unwrap() == whole && fs::read(&copy).unwrap() == whole);
    let vault = server.home.path().join("server/vaults/main");
    let kept = trees::files(&vault.join("quarantine")).into_iter().map(fs::read);
    assert!(kept.map(Result::unwrap).any(|kept| kept == edited));
    server.start();
    assert_eq!(client.json(&["snapshots"]), before);
}

#[test]
fn an_edited_time_is_named_replaces_nothing_and_nothing_goes_before_somebody_has_chosen() {
    let (mut server, client, manifest, copy, _dir) = two();
    let whole = fs::read(&manifest).unwrap();
    server.start();
    let before = client.json(&["snapshots"]);
    server.stop();
    let edited = edit(&manifest, |manifest| manifest.server_time = 1_000_000_000);
    for args in
        [&["check", "--rebuild-index"][..], &["check", "--rebuild-index", "--repair"], &["check", "--repair"]]
    {
        let named = server.home.run(args).expect(13);
        assert!(
            named.out.contains("0000000002.snap: its time is not as in its copy, copies/")
                && named.out.contains("`backhaul check --rebuild-index --repair`"),
            "{}",
            named.out
        );
        assert!(fs::read(&manifest).unwrap() == edited && fs::read(&copy).unwrap() == whole);
    }
    let refused = server.home.run(&["prune"]).expect(13);
    assert!(
        refused.err.contains("nothing was deleted") && refused.err.contains("0000000002.snap"),
        "{}",
        refused.err
    );
    fs::rename(&manifest, server.home.path().join("elsewhere")).unwrap();
    server.home.run(&["check", "--rebuild-index", "--repair"]).ok();
    assert!(fs::read(&manifest).unwrap() == whole && fs::read(&copy).unwrap() == whole);
    server.home.run(&["prune"]).ok();
    server.start();
    assert_eq!(client.json(&["snapshots"]), before);
}

/// The snapshot object in a pack, as its manifest has it, and where.
fn object(server: &TestServer, manifest: &Path) -> (PathBuf, usize, usize) {
    let record = Manifest::decode(&fs::read(manifest).unwrap()).unwrap().record;
    let place = |pack: PathBuf| {
        let bytes = fs::read(&pack).unwrap();
        let at = bytes.windows(record.len()).position(|window| window == record)?;
        Some((pack, at, record.len()))
    };
    server.packs().into_iter().find_map(place).unwrap()
}

/// No client sends an old snapshot again: a repair writes its object anew from its manifest.
#[test]
fn a_snapshot_whose_object_is_lost_comes_back_from_its_manifest() {
    let (mut server, client, manifest, _copy, dir) = two();
    server.start();
    let before = client.json(&["snapshots"]);
    server.stop();
    let (pack, at, len) = object(&server, &manifest);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[at + 100..at + len].fill(0);
    fs::write(&pack, bytes).unwrap();
    let vault = server.home.path().join("server/vaults/main");
    fs::remove_dir_all(vault.join("parity")).unwrap();
    let named = server.home.run(&["--json", "check", "--read-data"]).expect(13).json();
    assert_eq!(named["snapshots_affected"].as_array().unwrap().len(), 1, "{named}");
    server.start();
    assert_eq!(client.json(&["snapshots"]).as_array().unwrap().len(), 1, "it cannot be listed");
    server.stop();
    let repaired = server.home.json(&["check", "--read-data", "--repair"]);
    assert!(repaired["sound"] == true && damage(&repaired).contains("from its manifest"), "{repaired}");
    server.home.run(&["check", "--read-data", "--verify-content"]).ok();
    server.start();
    assert_eq!(client.json(&["snapshots"]), before);
    let out = tempfile::tempdir().unwrap();
    client.run(&["restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    trees::assert_equal(dir.path(), &out.path().join(dir.path().strip_prefix("/").unwrap()));
}
