//! What is kept: pins, retention, what is had back, and the brake.

use std::fs;
use std::path::Path;

use backhaul_tests::clocks::off_by;
use backhaul_tests::{Home, NO_NIGHT, TestServer, trees, wait_until};
use serde_json::Value;

use crate::json::assert_fits;
use crate::prune;

fn server(keep: &str) -> TestServer {
    let quiet = TestServer::quiet_policy();
    TestServer::with_policy(&format!("{quiet}keep = {keep}\n[admission]\nslots = 8\n"))
}

/// Takes snapshots of a file that changes, and returns their ids, oldest first.
fn snapshots(client: &Home, tree: &Path, count: usize) -> Vec<String> {
    let one = |number: usize| {
        fs::write(tree.join("letter"), format!("version {number}")).unwrap();
        client.json(&["backup"])["snapshot"].as_str().unwrap().to_owned()
    };
    (0..count).map(one).collect()
}

fn listed(home: &Home, args: &[&str]) -> Vec<(String, bool, bool)> {
    let list = home.json(&[&["snapshots"], args].concat());
    assert_fits("snapshots.json", &list);
    let row = |row: &Value| {
        (row["id"].as_str().unwrap().to_owned(), row["pinned"] == true, row["forgotten"] == true)
    };
    list.as_array().unwrap().iter().map(row).collect()
}

fn verdicts(document: &Value) -> Vec<(String, Vec<String>)> {
    let rows = document["clients"][0]["snapshots"].as_array().unwrap();
    let reasons = |row: &Value| {
        row["reasons"].as_array().unwrap().iter().map(|r| r.as_str().unwrap().to_owned()).collect()
    };
    rows.iter().map(|row| (row["id"].as_str().unwrap().to_owned(), reasons(row))).collect()
}

#[test]
fn what_no_rule_keeps_is_hidden_and_can_be_had_back() {
    let (mut server, dir, out) =
        (server("{ last = 1 }"), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let client = server.client("desk", &[dir.path()]);
    let ids = snapshots(&client, dir.path(), 5);
    let pinned = server.home.json(&["pin", &ids[0], "--reason", "before the move"]);
    assert_fits("mark.json", &pinned);

    let planned = server.home.json(&["forget", "--policy", "--dry-run"]);
    assert_fits("forget.json", &planned);
    let of = |id: &String| verdicts(&planned).into_iter().find(|(one, _)| one == id).unwrap().1;
    assert_eq!(
        (of(&ids[4]), of(&ids[2])),
        (vec!["last 1".to_owned(), "floor of 3".into()], vec!["floor of 3".into()])
    );
    assert_eq!((of(&ids[0]), of(&ids[1])), (vec!["pinned".to_owned()], vec![]));
    assert_eq!(listed(&client, &[]).len(), 5, "a dry run changes nothing");
    let table = server.home.run(&["forget", "--policy", "--dry-run"]).ok().out;
    assert!(table.contains("floor of 3") && table.contains("no rule keeps it"), "{table}");

    assert_fits("forget.json", &server.home.json(&["forget", "--policy"]));
    assert_eq!(listed(&client, &[]).len(), 4);
    let all = listed(&client, &["--all"]);
    assert_eq!((&all[0], &all[1]), (&(ids[0].clone(), true, false), &(ids[1].clone(), false, true)));
    let wrong = |args: [&str; 2], words: &str| {
        let done = server.home.run(&args).expect(2);
        assert!(done.err.contains(words), "{}", done.err);
    };
    wrong(["unpin", &ids[1]], "is forgotten: `backhaul unforget");
    wrong(["unforget", &ids[4]], "is not forgotten");
    let back = out.path().join("back");
    let restore = ["restore", &ids[1], "-t", back.to_str().unwrap()];
    client.run(&restore).expect(1);

    // Without a running server the command does it itself.
    server.stop();
    server.home.run(&["unforget", &ids[1]]).ok();
    server.home.run(&["unpin", &ids[0]]).ok();
    server.start();
    client.run(&restore).ok();
    assert_eq!(
        fs::read_to_string(back.join(dir.path().strip_prefix("/").unwrap()).join("letter")).unwrap(),
        "version 1"
    );
    let chores = server.home.json(&["chores"]);
    assert_fits("chores.json", &chores);
    let asked = chores.as_array().unwrap().iter().filter(|chore| chore["asked_by"] == "operator");
    let done: Vec<&str> = asked.map(|chore| chore["kind"].as_str().unwrap()).collect();
    assert_eq!(done, ["pin", "forget", "forget", "forget", "unforget", "unpin"]);
}

#[test]
fn what_cannot_be_meant_is_refused_and_no_client_can_forget() {
    let (server, dir) = (server("{ last = 9 }"), tempfile::tempdir().unwrap());
    let client = server.client("desk", &[dir.path()]);
    let ids = snapshots(&client, dir.path(), 2);
    client.run(&["forget", &ids[0]]).expect(12);
    client.run(&["pin", &ids[0]]).expect(12);
    let refused = |args: &[&str], named: &str| {
        let done = server.home.run(args).expect(2);
        assert!(done.err.contains(named), "{}", done.err);
    };
    refused(&["forget"], "what is to be forgotten");
    refused(&["forget", "--keep-tag", "x"], "tags alone");
    refused(&["forget", "--keep-daily", "0", "--dry-run"], "what is to be forgotten");
    refused(&["forget", "latest"], "--client");
    refused(&["forget", &ids[0], &ids[1]], "nothing would be left");
    server.home.run(&["pin", "latest", "--client", "desk"]).ok();
    refused(&["forget", &ids[1]], "pinned");
    refused(&["unforget", &ids[0]], "is not forgotten");
    let refusal = server.home.run(&["unforget", "latest", "--client", "desk"]).expect(1);
    assert!(refusal.err.contains("no snapshot is forgotten"), "{}", refusal.err);
    let file = dir.path().join("policy.toml");
    for (keep, named) in [("{ last = 0 }", "keeps nothing"), ("{ dayly = 3 }", "dayly")] {
        fs::write(&file, format!("[policy.default]\nkeep = {keep}\n")).unwrap();
        refused(&["policy", "apply", file.to_str().unwrap()], named);
    }
    let forgot = server.home.json(&["forget", &ids[0]]);
    assert_eq!((forgot["forgotten"].as_u64(), listed(&client, &[]).len()), (Some(1), 1));
}

/// Each client by its own policy, and what has a label by that.
#[test]
fn every_client_is_kept_by_its_own_rules_and_what_is_labelled_stays() {
    let quiet = TestServer::quiet_policy();
    let lab = quiet.replace("[policy.default]", "[policy.lab]");
    let server = TestServer::with_policy(&format!(
        "{quiet}keep = {{ last = 5 }}\n{lab}keep = {{ last = 1, tags = [\"legal\"] }}\n"
    ));
    let (of_desk, of_bench) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (desk, bench) = (server.client("desk", &[of_desk.path()]), Home::new());
    server.join(&bench, "bench", &["--policy", "lab"], &[of_bench.path()]);
    let ids = snapshots(&desk, of_desk.path(), 7);
    fs::write(of_bench.path().join("contract"), "signed").unwrap();
    let labelled = bench.json(&["backup", "--tag", "legal"])["snapshot"].as_str().unwrap().to_owned();
    let others = snapshots(&bench, of_bench.path(), 6);

    let planned = server.home.json(&["forget", "--policy", "--dry-run"]);
    assert_fits("forget.json", &planned);
    assert_eq!(server.home.json(&["forget", "--policy"])["forgotten"], 2 + 3);
    let left = |home: &Home| -> Vec<String> { listed(home, &[]).into_iter().map(|(id, ..)| id).collect() };
    let (mut desks, mut benchs) = (left(&desk), left(&bench));
    desks.sort();
    benchs.sort();
    let sorted = |ids: &[String]| {
        let mut ids = ids.to_vec();
        ids.sort();
        ids
    };
    assert_eq!(desks, sorted(&ids[2..]));
    // The newest three stay whatever the rules say.
    assert_eq!(benchs, sorted(&[&others[3..], &[labelled]].concat()));
}

#[test]
fn the_brake_holds_everything_when_a_client_rewrites_its_files_at_once() {
    let (mut server, dir) = (server("{ last = 1, grace = \"1d\" }"), tempfile::tempdir().unwrap());
    let client = server.client("desk", &[dir.path()]);
    for number in 0..60 {
        fs::write(dir.path().join(format!("{number}.txt")), format!("line {number}\n").repeat(5_000))
            .unwrap();
    }
    let before = snapshots(&client, dir.path(), 6);
    server.home.run(&["forget", &before[1]]).ok();
    // As ransomware does.
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..60 {
        let mut next = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise >> 56) as u8
        };
        let bytes: Vec<u8> = (0..50_000).map(|_| next()).collect();
        fs::write(dir.path().join(format!("{number}.txt.locked")), bytes).unwrap();
        fs::remove_file(dir.path().join(format!("{number}.txt"))).unwrap();
    }
    snapshots(&client, dir.path(), 1);
    let status = server.home.json(&["status"]);
    assert_fits("status.json", &status);
    assert!(status[0]["brake"].as_str().unwrap().contains("other contents"), "{status}");
    let alerts = server.home.json(&["alerts"]);
    assert_eq!((alerts[0]["kind"].as_str(), alerts[0]["client"].as_str()), (Some("brake"), Some("desk")));

    let held = server.home.json(&["forget", "--policy"]);
    assert_fits("forget.json", &held);
    assert_eq!((held["forgotten"].as_u64(), held["held"].as_u64()), (Some(0), Some(1)), "{held}");
    let refused = server.home.run(&["forget", &before[0]]).expect(2);
    assert!(refused.err.contains("--release-brake"), "{}", refused.err);
    assert_eq!(listed(&client, &[]).len(), 6);

    // What was forgotten before stays, too, however long its grace is over.
    server.stop();
    for days in [2, 3, 4] {
        let Some(pruned) = prune::in_days(days, &server.home, &["prune"]).map(prune::json) else { break };
        assert_fits("prune.json", &pruned);
        assert_eq!(
            (&pruned["snapshots"], &pruned["held"]),
            (&0.into(), &serde_json::json!(["desk"])),
            "{pruned}"
        );
    }
    server.start();
    assert_eq!(listed(&client, &["--all"]).len(), 7);
    assert_fits("release-brake.json", &server.home.json(&["forget", "--release-brake", "--client", "desk"]));
    assert!(server.home.json(&["alerts"]).as_array().unwrap().is_empty());
    server.stop();
    if let Some(pruned) = prune::in_days(5, &server.home, &["prune"]).map(prune::json) {
        assert_eq!((&pruned["snapshots"], &pruned["held"]), (&1.into(), &serde_json::json!([])), "{pruned}");
    }
    server.start();
    assert_eq!(server.home.json(&["forget", "--policy"])["forgotten"], 3);
}

/// All names are others, and what is in the files is not: nothing is sent that would show it.
#[test]
fn the_brake_holds_when_all_files_are_renamed_and_not_when_a_client_has_lost_its_state() {
    let (server, dir) = (server("{ last = 1 }"), tempfile::tempdir().unwrap());
    let client = server.client("desk", &[dir.path()]);
    let at = |name: &str| dir.path().join(name);
    for number in 0..60 {
        fs::write(at(&format!("{number}.txt")), trees::noise(30_000, number)).unwrap();
    }
    snapshots(&client, dir.path(), 5);
    let brake = || server.home.json(&["status"])[0]["brake"].clone();
    fs::remove_dir_all(client.path().join("agent/state")).unwrap();
    snapshots(&client, dir.path(), 1);
    assert!(brake().is_null(), "{}", brake());
    for number in 0..60 {
        fs::rename(at(&format!("{number}.txt")), at(&format!("{number}.txt.locked"))).unwrap();
    }
    snapshots(&client, dir.path(), 1);
    assert!(brake().as_str().is_some_and(|why| why.contains("other names")), "{}", brake());
}

/// A laptop's upload is cut again and again: its last session sends little, and all of them together rewrote everything.
#[test]
fn the_brake_counts_what_all_sessions_of_a_run_have_added() {
    let (server, dir) = (server("{ last = 1 }"), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    let rewrite = |seed: u64| {
        for number in 0..60 {
            let name = dir.path().join(format!("{number:02}.txt"));
            fs::write(name, trees::noise(100_000, seed + number)).unwrap();
        }
    };
    rewrite(0);
    snapshots(&client, dir.path(), 5);
    rewrite(1_000);
    let before = server.vault_bytes();
    let mut cut = client.command(&["-q", "backup", "--limit-upload", "1MB"]);
    let mut cut = cut.stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_until("most of it is there", || server.vault_bytes() > before + 4_500_000);
    cut.kill().unwrap();
    cut.wait().unwrap();
    client.run(&["backup"]).ok();
    let status = server.home.json(&["status"]);
    assert!(status[0]["brake"].as_str().is_some_and(|why| why.contains("other contents")), "{status}");
}

/// Stops the server, makes its config say that a night's chores are due now, and changes more while it is stopped.
fn make_night(server: &mut TestServer, more: &str) {
    server.stop();
    let home = server.home.path().join("server");
    let date = std::process::Command::new("date").args(["-d", "2 minutes ago", "+%H:%M"]).output().unwrap();
    let at = String::from_utf8(date.stdout).unwrap();
    let config = fs::read_to_string(home.join("config.toml")).unwrap().replace(NO_NIGHT, "");
    fs::write(home.join("config.toml"), format!("{config}\n[nightly]\nat = \"{}\"\n{more}", at.trim()))
        .unwrap();
    let fleet = rusqlite::Connection::open(home.join("fleet.sqlite")).unwrap();
    let last = "INSERT INTO chores (kind, asked_by, request, state, requested_at)
                VALUES ('forget', 'timer', '{}', 'done', unixepoch() - 172800)";
    fleet.execute(last, []).unwrap();
}

/// A nightly export that fails raises an alert of its own kind, `status` says so, and it is over when one works.
#[test]
fn a_nightly_chore_that_fails_is_told_and_shown_until_it_works() {
    let (mut server, dir) = (server("{ last = 1 }"), tempfile::tempdir().unwrap());
    let client = server.client("desk", &[dir.path()]);
    snapshots(&client, dir.path(), 1);
    assert!(!server.home.run(&["status"]).ok().err.contains("upkeep"));
    // A file where the folder of exports should be.
    let (exports, told) = (server.home.path().join("server/vaults/main/exports"), dir.path().join("told"));
    let command = format!("[alerts]\ncommand = ['/bin/sh', '-c', 'cat >> \"$1\"', 'notify', {told:?}]\n");
    make_night(&mut server, &command);
    let _ = fs::remove_dir_all(&exports);
    fs::write(&exports, b"in the way").unwrap();
    server.start();
    let upkeep = |server: &TestServer| {
        let alerts = server.home.json(&["alerts"]);
        assert_fits("alerts.json", &alerts);
        let open = alerts.as_array().unwrap().iter().find(|alert| alert["kind"] == "upkeep").cloned();
        open.map(|alert| alert["text"].as_str().unwrap().to_owned())
    };
    wait_until("the failure is told", || upkeep(&server).is_some());
    let text = upkeep(&server).unwrap();
    assert!(text.contains("export fails") && text.contains("exports"), "{text}");
    let status = server.home.run(&["status"]).ok();
    assert!(status.err.contains("upkeep: export fails since"), "{}", status.err);
    assert_ne!(server.home.run(&["status", "--check"]).code, 0);
    wait_until("the admin has a message", || {
        fs::read_to_string(&told).unwrap_or_default().contains("\"upkeep\"")
    });
    let message = fs::read_to_string(&told).unwrap();
    let first = serde_json::Deserializer::from_str(&message).into_iter::<Value>().next().unwrap().unwrap();
    assert_fits("alert.json", &first);
    // The rest of the night was done all the same.
    wait_until("the prune is done", || {
        let chores = server.home.json(&["chores"]);
        chores.as_array().unwrap().iter().any(|chore| chore["kind"] == "prune" && chore["state"] == "done")
    });
    fs::remove_file(&exports).unwrap();
    server.home.run(&["server", "export"]).ok();
    assert_eq!(upkeep(&server), None);
    assert!(!server.home.run(&["status"]).ok().err.contains("upkeep"));
}

#[test]
fn a_night_that_was_slept_through_is_made_up_for_once() {
    let (mut server, dir) = (server("{ last = 1 }"), tempfile::tempdir().unwrap());
    let client = server.client("desk", &[dir.path()]);
    snapshots(&client, dir.path(), 5);
    make_night(&mut server, "");
    server.start();
    let nightly = |server: &TestServer| {
        let chores = server.home.json(&["chores"]);
        let of = |kind: &str| {
            let new = chores.as_array().unwrap().iter().skip(1);
            let done = new.filter(|c| c["kind"] == kind && c["asked_by"] == "timer" && c["state"] == "done");
            done.count()
        };
        (of("export"), of("forget"))
    };
    wait_until("the night's chores are done", || nightly(&server).0 >= 1 && nightly(&server).1 >= 1);
    assert_eq!(listed(&client, &[]).len(), 3);
    server.stop();
    server.start();
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(nightly(&server).1, 1, "once");
    let path = server.home.path().join("server/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    let at = config.lines().find(|line| line.starts_with("at = ")).unwrap();
    for (wrong, named) in [("at = \"soon\"", "nightly.at"), ("limit = \"slow\"", "nightly.limit")] {
        fs::write(&path, config.replace(at, wrong)).unwrap();
        let refused = server.home.run(&["client", "list"]).expect(1);
        assert!(refused.err.contains(named), "{}", refused.err);
    }
}

/// Retention does not ask what time it is, and a jump of the clock is one night of the grace at most.
#[test]
fn a_server_whose_clock_jumps_by_a_year_keeps_the_same_and_can_have_back_what_it_forgot() {
    let (mut server, dir) = (server("{ last = 1, within = \"1d\" }"), tempfile::tempdir().unwrap());
    let client = server.client("desk", &[dir.path()]);
    let ids = snapshots(&client, dir.path(), 5);
    server.stop();
    let planned = |days: i64, args: &[&str]| {
        let args = [&["--json", "forget", "--client", "desk"], args].concat();
        let output = off_by(days, server.home.command(&args))?.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(verdicts(&serde_json::from_slice(&output.stdout).unwrap()))
    };
    for rules in [&["--policy", "--dry-run"][..], &["--keep-last", "1", "--dry-run"]] {
        let (Some(now), Some(ahead), Some(behind)) =
            (planned(0, rules), planned(365, rules), planned(-365, rules))
        else {
            return;
        };
        assert_eq!((&now, &now), (&ahead, &behind), "{rules:?}");
    }
    let forgotten = planned(365, &["--keep-last", "1"]).unwrap();
    assert_eq!(forgotten.iter().filter(|(_, reasons)| reasons.is_empty()).count(), 2);
    server.home.run(&["unforget", &ids[0], &ids[1]]).ok();
    server.start();
    assert_eq!(listed(&client, &[]).len(), 5);
}
