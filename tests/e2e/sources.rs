//! What is saved and what is not: patterns, marks, lists, streams, and programs before and after.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use backhaul_tests::{Done, Home, TestServer, free_port, trees, wait_until};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// A home that has joined its own server.
fn joined(path: &Path) -> Home {
    let home = Home::new();
    home.run(&["-q", "quickstart", path.to_str().unwrap()]).ok();
    home
}

/// Everything below a path in the newest snapshot, relative to it.
fn listed(home: &Home, path: &Path) -> Vec<String> {
    let path = path.display().to_string();
    let rows = home.json(&["ls", "-R", &format!("latest:{path}")]);
    let name =
        |row: &serde_json::Value| row["path"].as_str().unwrap().strip_prefix(&path).unwrap()[1..].to_owned();
    rows.as_array().unwrap().iter().map(name).collect()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Says something in `[backup]` of the agent's config.
fn configure(home: &Home, key: &str, value: &str) {
    let path = home.path().join("agent/config.toml");
    let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    let value: toml::Table = format!("{key} = {value}").parse().unwrap();
    config["backup"].as_table_mut().unwrap().extend(value);
    let text = config.to_string();
    fs::write(path, text).unwrap();
}

#[test]
fn what_is_not_wanted_is_left_out_and_counted() {
    let (dir, lists) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    for name in [
        "a.tmp",
        "keep.tmp",
        "B.JPG",
        "build/x",
        "src/build/y",
        "src/z",
        "big",
        "no/.nobackup",
        "no/n",
        "no/deep/n",
    ] {
        write(&at(name), name);
    }
    write(&at("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n# more");
    write(&at("cache/junk"), "junk");
    write(&at("not a cache/CACHEDIR.TAG"), "Signature: another");
    write(&at("not a cache/kept"), "kept");
    fs::write(at("big"), trees::noise(2_000_000, 1)).unwrap();
    let home = joined(dir.path());
    let path = dir.path().to_str().unwrap();
    let patterns = lists.path().join("patterns");
    write(&patterns, "# a comment\n\n*.tmp\n!keep.tmp\n");
    let saved = home.json(&[
        "backup",
        path,
        "--exclude-file",
        patterns.to_str().unwrap(),
        "--iexclude",
        "*.jpg",
        "--exclude",
        &format!("{path}/build"),
        "--exclude-if-present",
        ".nobackup",
        "--exclude-larger-than",
        "1MB",
    ]);
    let expected = [
        "cache",
        "cache/CACHEDIR.TAG",
        "keep.tmp",
        "no",
        "no/.nobackup",
        "not a cache",
        "not a cache/CACHEDIR.TAG",
        "not a cache/kept",
        "src",
        "src/build",
        "src/build/y",
        "src/z",
    ];
    assert_eq!(listed(&home, dir.path()), expected);
    let left_out = serde_json::json!({ "by pattern": 3, "in folders marked so (--exclude-caches, --exclude-if-present)": 2, "larger than asked for": 1 });
    assert_eq!(saved["left_out"], left_out, "{saved}");
}

#[test]
fn what_the_config_says_holds_for_every_run_and_the_command_line_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["src/build/y", "src/z", "plain"] {
        write(&at(name), name);
    }
    write(&at("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55");
    write(&at("cache/junk"), "junk");
    let (home, path) = (joined(dir.path()), dir.path().to_str().unwrap());
    let help = home.run(&["backup", "--help"]).ok().out;
    assert!(help.contains("/home/*/.cache/") && help.contains("--no-default-excludes"), "{help}");
    configure(&home, "exclude", "[\"src\"]");
    home.run(&["-q", "backup", path, "--include-caches", "--exclude", "!src", "-e", "z"]).ok();
    let names = listed(&home, dir.path());
    assert!(
        names.contains(&"cache/junk".to_owned()) && names.contains(&"src/build/y".to_owned()),
        "{names:?}"
    );
    assert!(!names.contains(&"src/z".to_owned()), "{names:?}");
    home.run(&["-q", "backup", path]).ok();
    assert!(!listed(&home, dir.path()).iter().any(|name| name.starts_with("src")));
    // What is named itself is saved, whatever it is marked as.
    home.run(&["-q", "backup", at("cache").to_str().unwrap()]).ok();
    assert_eq!(listed(&home, &at("cache")), ["CACHEDIR.TAG", "junk"]);
    configure(&home, "exclude_caches", "false");
    home.run(&["-q", "backup", path]).ok();
    assert!(listed(&home, dir.path()).contains(&"cache/junk".to_owned()));
    home.run(&["-q", "backup", path, "--exclude-caches"]).ok();
    assert!(!listed(&home, dir.path()).contains(&"cache/junk".to_owned()));
}

#[test]
fn a_pattern_that_cannot_be_read_is_named_and_so_is_a_config_that_has_one() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("f"), "f");
    let home = joined(dir.path());
    let refused = home.run(&["backup", "--exclude", "[z-a]"]).expect(1);
    assert!(refused.err.contains("[z-a]"), "{}", refused.err);
    for (key, value, part) in [
        ("exclude_larger_than", "'many'", "many"),
        ("hook_timeout", "'soon'", "soon"),
        ("exclude", "['[z-a]']", "[z-a]"),
        ("exlude", "[]", "exlude"),
    ] {
        let before = fs::read_to_string(home.path().join("agent/config.toml")).unwrap();
        configure(&home, key, value);
        let refused = home.run(&["backup"]).expect(1);
        assert!(refused.err.contains(part) && refused.err.contains("config.toml"), "{}", refused.err);
        fs::write(home.path().join("agent/config.toml"), before).unwrap();
    }
    home.run(&["-q", "backup"]).ok();
}

#[test]
fn files_that_say_so_are_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("marked"), "m");
    write(&dir.path().join("plain"), "p");
    let file = fs::File::open(dir.path().join("marked")).unwrap();
    if ioctl_getflags(&file).and_then(|flags| ioctl_setflags(&file, flags | IFlags::NODUMP)).is_err() {
        return backhaul_tests::netns::skipped("this file system has no such flag");
    }
    let home = joined(dir.path());
    assert_eq!(listed(&home, dir.path()), ["plain"]);
    home.run(&["-q", "backup", "--include-nodump"]).ok();
    assert_eq!(listed(&home, dir.path()), ["marked", "plain"]);
}

#[test]
fn paths_come_from_lists_too() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["one", "two\nlines", "three", "not listed"] {
        write(&at(name), name);
    }
    let home = joined(&at("one"));
    let list = dir.path().join("list");
    fs::write(&list, format!("{}\n{}\n", at("one").display(), at("three").display())).unwrap();
    home.run(&["-q", "backup", "--files-from", list.to_str().unwrap()]).ok();
    assert_eq!(listed(&home, dir.path()), ["one", "three"]);
    fs::write(&list, format!("{}\0{}\0", at("one").display(), at("two\nlines").display())).unwrap();
    home.run(&["-q", "backup", "--files-from", list.to_str().unwrap()]).ok();
    assert_eq!(listed(&home, dir.path()), ["one", "two\nlines"]);
    let mut piped = home.command(&["-q", "backup", "--files-from", "-"]);
    piped.stdin(fs::File::open(&list).unwrap());
    Done::of(piped).ok();
    assert_eq!(listed(&home, dir.path()), ["one", "two\nlines"]);
    fs::write(&list, "").unwrap();
    home.run(&["-q", "backup", "--files-from", list.to_str().unwrap()]).expect(2);

    // Named itself, a path is saved whatever excludes say; inside another that is named, it is a part of that.
    let named = |paths: &[&Path]| {
        let lines = paths.iter().map(|path| format!("{}\n", path.display())).collect::<String>();
        fs::write(&list, lines).unwrap();
        let args = ["-q", "backup", "--exclude", "three", "--files-from", list.to_str().unwrap()];
        home.run(&args).ok();
        listed(&home, dir.path())
    };
    assert_eq!(named(&[&at("one"), &at("three")]), ["one", "three"]);
    assert_eq!(named(&[dir.path(), &at("three")]), ["list", "not listed", "one", "two\nlines"]);
    assert_eq!(named(&[&at("three"), dir.path()]), ["list", "not listed", "one", "two\nlines"]);
}

#[test]
fn a_stream_is_one_file_and_one_that_breaks_off_is_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("f"), "f");
    let home = joined(dir.path());
    let data = trees::noise(12_000_000, 7);
    let mut command = home.command(&["--json", "backup", "--stdin", "--stdin-filename", "db.sql"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&data).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    let saved: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&saved["files"], &saved["bytes_read"]), (&1.into(), &12_000_000.into()), "{saved}");
    let out = dir.path().join("out");
    home.run(&["dump", "latest:/db.sql", "-o", out.to_str().unwrap()]).ok();
    assert!(fs::read(&out).unwrap() == data);

    // It is no snapshot of the files: without the other one nothing protects these.
    let snapshots = home.json(&["snapshots"]);
    let of = |snapshots: &serde_json::Value| -> Vec<bool> {
        snapshots.as_array().unwrap().iter().map(|one| one["stream"].as_bool().unwrap()).collect()
    };
    assert_eq!(of(&snapshots), [false, true], "{snapshots}");
    let (files, client) = (snapshots[0]["id"].as_str().unwrap(), snapshots[0]["client"].as_str().unwrap());
    assert!(home.json(&["status"])[0]["protected_s"].is_u64());
    home.run(&["forget", files, "--client", client]).ok();
    assert!(home.json(&["status"])[0]["protected_s"].is_null());
    home.run(&["unforget", files, "--client", client]).ok();
    assert!(home.run(&["snapshots"]).ok().out.contains("db.sql (stream)"));
    assert!(!home.run(&["ls", "-R", "latest"]).ok().out.contains("db.sql"), "the latest is of files");
    // Each is kept for itself.
    let kept = home.json(&["forget", "--keep-last", "1", "--client", client, "--dry-run"]);
    assert_eq!(kept["kept"], 2, "{kept}");

    let before = home.json(&["snapshots"]).as_array().unwrap().len();
    let failing = ["backup", "--stdin-from-command", "--", "sh", "-c", "echo half; exit 7"];
    let failed = home.run(&failing).expect(1);
    assert!(failed.err.contains("exit status: 7") && failed.err.contains("no snapshot"), "{}", failed.err);
    home.run(&["backup", "--stdin-from-command", "--", "/nowhere/pg_dump"]).expect(1);
    assert_eq!(home.json(&["snapshots"]).as_array().unwrap().len(), before);
    home.run(&["-q", "backup", "--stdin-from-command", "--stdin-filename", "w", "--", "echo", "whole"]).ok();
    assert_eq!(home.run(&["dump", "latest:w"]).ok().out, "whole\n");
}

#[test]
fn programs_run_before_and_after_and_one_that_fails_before_stops_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, log) = (dir.path().join("tree"), dir.path().join("log"));
    write(&tree.join("f"), "f");
    let home = joined(&tree);
    // It makes what is then saved.
    configure(&home, "before", &format!("['sh', '-c', 'echo dump > {}/made']", tree.display()));
    let after = format!(
        "['sh', '-c', 'echo \"$BACKHAUL_ERROR\" $BACKHAUL_SNAPSHOT $BACKHAUL_CLIENT $BACKHAUL_TRIGGER $BACKHAUL_RESULT >> {}']",
        log.display()
    );
    configure(&home, "after", &after);
    let id = home.json(&["backup"])["snapshot"].as_str().unwrap().to_owned();
    assert_eq!(listed(&home, &tree), ["f", "made"]);
    let said = fs::read_to_string(&log).unwrap();
    let client = home.json(&["snapshots"])[0]["client"].as_str().unwrap().to_owned();
    assert_eq!(said.trim(), format!("{id} {client} manual complete"));

    let before = home.json(&["snapshots"]).as_array().unwrap().len();
    configure(&home, "before", "['sh', '-c', 'echo the database is down >&2; exit 4']");
    let failed = home.run(&["backup"]).expect(1);
    for part in ["no backup was made", "exit status: 4", "the database is down"] {
        assert!(failed.err.contains(part), "{}", failed.err);
    }
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.lines().last().unwrap().contains("exit status: 4"), "the error is told, too: {said}");
    let told = format!(
        "['sh', '-c', 'echo \"before $BACKHAUL_TRIGGER $BACKHAUL_CLIENT\" >> {}; false']",
        log.display()
    );
    configure(&home, "before", &told);
    home.run(&["backup"]).expect(1);
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains(&format!("before manual {client}\n")), "{said}");
    configure(&home, "before", "['sleep', '60']");
    configure(&home, "hook_timeout", "'1s'");
    let failed = home.run(&["backup"]).expect(1);
    assert!(failed.err.contains("did not end within 1 s"), "{}", failed.err);
    assert_eq!(home.json(&["snapshots"]).as_array().unwrap().len(), before);
    let said = fs::read_to_string(&log).unwrap();
    assert_eq!(
        said.lines().filter(|line| line.ends_with("manual failed")).count(),
        3,
        "what was begun is undone"
    );

    // One that fails afterwards is named; the snapshot is there.
    configure(&home, "before", "[]");
    configure(&home, "after", "['false']");
    let partial = home.run(&["backup"]).expect(3);
    assert!(partial.err.contains("false: exit status: 1"), "{}", partial.err);
    assert_eq!(home.json(&["snapshots"]).as_array().unwrap().len(), before + 1);
    // So is one that does not end; what it has started ends with it.
    let mark = dir.path().join("too late");
    let late = format!("['sh', '-c', 'sleep 4 && touch {} & sleep 60']", mark.display());
    configure(&home, "after", &late);
    let partial = home.run(&["backup"]).expect(3);
    assert!(partial.err.contains("did not end within 1 s"), "{}", partial.err);
    assert_eq!(home.json(&["snapshots"]).as_array().unwrap().len(), before + 2);
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(!mark.exists(), "what it has started goes on");
}

/// A program that runs after it is told what began a run.
#[test]
fn programs_are_told_whether_a_person_the_server_or_the_network_began_a_run() {
    let (server, dir) = (TestServer::with_policy(&TestServer::due_policy()), tempfile::tempdir().unwrap());
    let (tree, log) = (dir.path().join("tree"), dir.path().join("log"));
    write(&tree.join("f"), "f");
    let told = format!("['sh', '-c', 'echo $BACKHAUL_CLIENT $BACKHAUL_TRIGGER >> {}']", log.display());
    let lines = || fs::read_to_string(&log).unwrap_or_default();
    let (desk, address) = server.listener("desk", &[&tree]);
    configure(&desk, "after", &told);
    let _dialled = desk.start(&["agent", "run", "--listen", &address]);
    wait_until("the server dials it", || !lines().is_empty());
    let laptop = server.client("laptop", &[&tree]);
    configure(&laptop, "after", &told);
    let _comes = laptop.start(&["agent", "run", "--listen", &format!("127.0.0.1:{}", free_port())]);
    wait_until("it comes by itself", || lines().contains("laptop"));
    laptop.run(&["-q", "backup"]).ok();
    assert_eq!(lines(), "desk dialled\nlaptop join\nlaptop manual\n");
}

/// A new computer takes the place of a stolen one: its history is there, and nothing is sent again.
#[test]
fn another_machine_takes_a_clients_place() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("f"), trees::noise(5_000_000, 3)).unwrap();
    let old = server.client("laptop", &[dir.path()]);
    old.run(&["-q", "backup"]).ok();
    let offer = server.home.json(&["client", "replace", "laptop"]);
    // Until the new one comes, the old one goes on.
    old.run(&["-q", "backup"]).ok();
    let new = Home::new();
    let path = dir.path().to_str().unwrap();
    new.run(&["join", offer["join_code"].as_str().unwrap(), path]).ok();
    assert_eq!(new.json(&["snapshots"]).as_array().unwrap().len(), 2);
    let carried_on = new.json(&["backup"]);
    assert_eq!(carried_on["client"], "laptop");
    assert!(carried_on["bytes_sent"].as_u64().unwrap() < 10_000, "{carried_on}");
    let out = dir.path().join("out");
    new.run(&["restore", &format!("latest:{path}/f"), "-t", out.to_str().unwrap(), "--verify"]).ok();
    let refused = old.run(&["backup"]).expect(12);
    assert!(refused.err.contains("revoked") || refused.err.contains("key"), "{}", refused.err);
    server.home.run(&["client", "replace", "nobody"]).expect(1);
}
