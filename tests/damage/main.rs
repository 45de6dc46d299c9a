//! Damage to a vault: found, named, and survived as far as it can be.
#![allow(clippy::unwrap_used, reason = "tests")]

mod manifests;
mod results;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use backhaul_tests::{TestServer, trees};
use serde_json::Value;

/// What a check says is lost, by path.
fn lost(found: &Value) -> BTreeSet<String> {
    let lost = found["lost"].as_array().unwrap().iter();
    lost.map(|lost| lost["path"].as_str().unwrap().to_owned()).collect()
}

/// What a restore into `out` could not bring, by path in the snapshot.
fn named(restored: &Value, out: &Path) -> BTreeSet<String> {
    let errors = restored["errors"].as_array().unwrap().iter();
    errors.map(|error| error["path"].as_str().unwrap().replace(out.to_str().unwrap(), "")).collect()
}

#[test]
fn a_subset_of_the_packs_is_read_and_all_subsets_are_all_packs() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    for number in 0..3 {
        fs::write(dir.path().join(number.to_string()), trees::noise(300_000, number)).unwrap();
        client.run(&["backup"]).ok();
        // What a server writes when it ends is a pack of its own.
        server.stop();
        server.start();
    }
    server.stop();
    let packs = server.packs();
    assert!(packs.len() >= 6, "{packs:?}");
    let bad = packs.iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(bad).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(bad, bytes).unwrap();
    let check = |subset: &str| {
        let mut check = server.home.command(&["--json", "check", "--read-data-subset", subset]);
        serde_json::from_slice::<Value>(&check.output().unwrap().stdout).unwrap()
    };
    let parts: Vec<Value> = ["1/3", "2/3", "3/3"].map(check).into();
    let read = parts.iter().map(|part| part["packs_read"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(read.iter().sum::<u64>(), packs.len() as u64, "{read:?}");
    assert!(read.iter().all(|read| *read < packs.len() as u64), "{read:?}");
    assert_eq!(parts.iter().filter(|part| part["sound"] == false).count(), 1, "{parts:?}");
    let whole = check("100%");
    assert_eq!(
        (whole["packs_read"].as_u64(), whole["sound"].as_bool()),
        (Some(packs.len() as u64), Some(false))
    );
    for wrong in ["0/3", "4/3", "0%", "101%", "some"] {
        server.home.run(&["check", "--read-data-subset", wrong]).expect(2);
    }
}

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
    server.stop();
    // The damage is named by path, and parity makes it good.
    assert_eq!(lost(&found), named(&restored, out.path()), "exactly what a restore misses is listed");
    let repaired = server.home.json(&["check", "--read-data", "--repair"]);
    let how = repaired["damage"][0]["repaired"].as_str().unwrap();
    assert!(how.contains("parity") && repaired["sound"] == true, "{repaired}");
    bytes[middle] ^= 1;
    assert!(fs::read(&largest).unwrap() == bytes);
    server.home.run(&["check", "--read-data", "--verify-content"]).ok();
    server.start();
    let whole = tempfile::tempdir().unwrap();
    client.run(&["restore", "latest", "-t", whole.path().to_str().unwrap()]).ok();
    trees::assert_equal(&tree, &whole.path().join(tree.strip_prefix("/").unwrap()));
}

#[test]
fn check_repair_makes_a_vault_usable_whose_caches_are_gone_or_changed() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let client = server.client("laptop", &[&tree]);
    client.run(&["backup"]).ok();
    let before = client.json(&["snapshots"]);
    server.stop();
    let vault = server.home.path().join("server/vaults/main");
    let catalog = vault.join("catalog.sqlite");
    let mut rows = fs::read(&catalog).unwrap();
    // The client's name as the snapshot's row has it: SQLite itself would not notice.
    let place = rows.windows(6).rposition(|bytes| bytes == b"laptop").unwrap();
    rows[place] = b'L';
    fs::write(&catalog, rows).unwrap();
    let refused = server.home.run(&["server", "run"]).expect(13);
    assert!(refused.err.contains("snapshots") && refused.err.contains("--rebuild-index"), "{}", refused.err);
    fs::write(vault.join("vault.desc"), b"BHVD").unwrap();
    let repaired = server.home.json(&["check", "--repair"]);
    assert_eq!(
        (repaired["sound"].as_bool(), repaired["rebuilt"]["snapshots"].as_u64()),
        (Some(true), Some(1))
    );
    server.start();
    assert_eq!(client.json(&["snapshots"]), before);
}

/// The server finds and repairs by itself, says so when it cannot, and what a client still has comes back.
#[test]
fn the_scrub_repairs_by_itself_and_tells_what_it_cannot() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let client = server.client("laptop", &[&tree]);
    client.run(&["backup"]).ok();
    server.stop();
    let home = server.home.path().join("server");
    let config = fs::read_to_string(home.join("config.toml")).unwrap();
    let scrub = |cycle: &str| {
        fs::write(home.join("config.toml"), format!("{config}\n[scrub]\ncycle = \"{cycle}\"\n")).unwrap();
    };
    scrub("off");
    let largest = server.packs().into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let whole = fs::read(&largest).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    fs::write(&largest, &bytes).unwrap();
    server.start();
    // A running server that is told so reads its config again.
    scrub("3s");
    let pid = server.pid().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    wait_until("the scrub has repaired the pack", || fs::read(&largest).unwrap() == whole);
    assert!(!trees::files(&home.join("vaults/main/quarantine")).is_empty());
    wait_until("everything was read", || {
        let status = server.home.json(&["check", "--status"]);
        status["packs_fresh"] == status["packs"]
    });
    let alerts = server.home.json(&["alerts"]);
    assert!(alerts.as_array().unwrap().is_empty(), "what was repaired is no alert: {alerts}");
    // More than parity makes good.
    let mut bytes = whole.clone();
    bytes[whole.len() / 4..].fill(0);
    fs::write(&largest, &bytes).unwrap();
    let is_told = || {
        let alerts = server.home.json(&["alerts"]);
        alerts.as_array().unwrap().iter().any(|alert| alert["kind"] == "damage")
    };
    wait_until("the scrub has given the pack up", is_told);
    let found = server.home.run(&["--json", "check"]).expect(13).json();
    let lost = found["lost"].as_array().unwrap();
    assert!(!lost.is_empty() && lost[0]["client"] == "laptop", "{found}");
    let path = lost[0]["path"].as_str().unwrap();
    assert!(std::path::Path::new(path.trim_end_matches('/')).exists(), "{path} is a path on the client");
    // The agent's state says that nothing has changed; it sends what is wanted all the same.
    client.run(&["backup"]).ok();
    server.home.run(&["check", "--read-data", "--verify-content"]).ok();
    wait_until("the alert is over", || !is_told());
    let snapshots = client.json(&["snapshots"]);
    for snapshot in snapshots.as_array().unwrap() {
        let out = tempfile::tempdir().unwrap();
        client.run(&["restore", snapshot["id"].as_str().unwrap(), "-t", out.path().to_str().unwrap()]).ok();
        trees::assert_equal(&tree, &out.path().join(tree.strip_prefix("/").unwrap()));
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1_200 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{what}: not within two minutes");
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
    assert_eq!(lost(&rebuilt), named(&restored, out.path()), "exactly what a restore misses is listed");
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
    // As if they were on a disk that is not mounted: nothing is made of that unless somebody says so.
    for args in [&["check", "--rebuild-index"][..], &["check", "--rebuild-index", "--repair"]] {
        let refused = server.home.run(args).expect(13);
        assert!(
            refused.err.contains("has 0 of the") && refused.err.contains("is it mounted"),
            "{}",
            refused.err
        );
        assert!(refused.err.contains("--packs-are-lost"), "{}", refused.err);
    }
    server.home.run(&["check", "--packs-are-lost"]).expect(2);
    let named = server.home.run(&["check", "--rebuild-index", "--packs-are-lost"]).expect(13);
    assert!(named.out.contains("rebuilt: 0 objects of 0 packs"), "{}", named.out);
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
    let vault = server.home.path().join("server/vaults/main");
    let manifests = trees::files(&vault.join("snaps"));
    let count = || client.json(&["snapshots"]).as_array().unwrap().len();
    fs::write(&manifests[0], b"BHSN").unwrap();
    server.home.run(&["check", "--rebuild-index"]).expect(13);
    server.start();
    assert_eq!(count(), 2, "its copy speaks for it");
    server.stop();
    // The scrub may have mended it meanwhile.
    fs::write(&manifests[0], b"BHSN").unwrap();
    fs::remove_file(vault.join("copies").join(manifests[0].strip_prefix(vault.join("snaps")).unwrap()))
        .unwrap();
    // The scrub of the server that ran meanwhile may have brought it back.
    fs::write(&manifests[0], b"BHSN").unwrap();
    server.home.run(&["check", "--rebuild-index"]).expect(13);
    server.start();
    assert_eq!(count(), 1);
}

/// A server that has stopped, its vault, and the newest export of that.
fn exported() -> (TestServer, PathBuf, PathBuf) {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    client.run(&["backup"]).ok();
    server.home.run(&["server", "export"]).ok();
    server.stop();
    let vault = server.home.path().join("server/vaults/main");
    let newest = trees::files(&vault.join("exports")).into_iter().max().unwrap();
    (server, vault, newest)
}

/// Nobody else looks at what a recovery needs until it is needed.
#[test]
fn a_damaged_export_is_named_and_made_anew() {
    let (server, vault, name) = exported();
    let newest = || trees::files(&vault.join("exports")).into_iter().max().unwrap();
    let mut bytes = fs::read(&name).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&name, &bytes).unwrap();
    let found = server.home.run(&["check"]).expect(13);
    assert!(found.out.contains(&format!("exports/{}", name.file_name().unwrap().display())), "{}", found.out);
    let repaired = server.home.json(&["check", "--repair"]);
    assert!(repaired["sound"] == true && repaired["damage"].as_array().unwrap().len() == 1, "{repaired}");
    assert!(newest() >= name && fs::read(newest()).unwrap() != bytes);
    let kept = trees::files(&vault.join("quarantine")).into_iter();
    assert!(kept.map(|path| fs::read(path).unwrap()).any(|kept| kept == bytes));
    server.home.run(&["check"]).ok();
}

/// That one cannot be read now says nothing of what is in it.
#[test]
fn an_export_that_cannot_be_read_is_named_and_left_where_it_is() {
    let (server, vault, name) = exported();
    let away = vault.join("away");
    fs::rename(&name, &away).unwrap();
    // As on a disk that has too much to do, for root as well.
    std::os::unix::fs::symlink(name.file_name().unwrap(), &name).unwrap();
    let found = server.home.run(&["--json", "check", "--repair"]).expect(13).json();
    let damage = found["damage"].as_array().unwrap();
    let said = |text: &str| damage.iter().any(|damage| damage.to_string().contains(text));
    assert!(said(name.file_name().unwrap().to_str().unwrap()) && said("cannot be read now"), "{found}");
    assert!(name.is_symlink() && trees::files(&vault.join("quarantine")).is_empty());
    fs::rename(&away, &name).unwrap();
    server.home.run(&["check"]).ok();
}

/// The running server looks at them, too.
#[test]
fn the_scrub_puts_a_damaged_export_aside_and_makes_one_anew() {
    let (mut server, vault, name) = exported();
    let home = server.home.path().join("server");
    let config = fs::read_to_string(home.join("config.toml")).unwrap();
    fs::write(home.join("config.toml"), format!("{config}\n[scrub]\ncycle = \"2s\"\n")).unwrap();
    let exports = || trees::files(&vault.join("exports"));
    let mut bytes = fs::read(&name).unwrap();
    bytes.truncate(100);
    fs::write(&name, &bytes).unwrap();
    server.start();
    let kept = || trees::files(&vault.join("quarantine")).into_iter().map(fs::read);
    wait_until("the damaged one is aside", || kept().any(|kept| kept.is_ok_and(|kept| kept == bytes)));
    wait_until("there is a new one", || {
        exports().into_iter().max().is_some_and(|newest| newest >= name && fs::read(newest).unwrap() != bytes)
    });
    let chores = server.home.json(&["chores"]);
    let mut made = chores.as_array().unwrap().iter().filter(|chore| chore["kind"] == "export");
    assert!(made.next_back().is_some_and(|chore| chore["asked_by"] == "timer"), "{chores}");
    server.home.run(&["check"]).ok();
    let alerts = server.home.json(&["alerts"]);
    assert!(alerts.as_array().unwrap().is_empty(), "{alerts}");
}
