//! Restores on another client's machine, ordered on the server: only as that machine's config allows, over a link or by dial.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use backhaul_agent::Remote;
use backhaul_agent::home::AgentHome;
use backhaul_agent::run::dial;
use backhaul_agent::ways::Ways;
use backhaul_proto::wire;
use backhaul_tests::{Done, Home, TestServer, trees, wait_until};

use crate::json::assert_fits;

fn restore(server: &TestServer, from: &Path, to: &Path, client: &str, more: &[&str]) -> Done {
    let what = format!("latest:{}", from.display());
    let (to, whose) = (to.to_str().unwrap(), ["--client", "ana", "--to-client", client]);
    server.home.run(&[&["restore", &what, "-t", to][..], &whose, more].concat())
}

fn allow(home: &Home, targets: &Path) {
    let config = home.path().join("agent/config.toml");
    let mut config = fs::File::options().append(true).open(config).unwrap();
    writeln!(config, "[restore]\nallow = true\ntargets = [{:?}]", targets.to_str().unwrap()).unwrap();
}

#[test]
fn a_client_restores_what_another_has_if_its_own_config_allows_it() {
    let (server, dir, out) = (TestServer::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tree, out) = (trees::everything(dir.path()), out.path().canonicalize().unwrap());
    let target = out.join("in/back");
    server.client("ana", &[&tree]).run(&["-q", "backup"]).ok();
    let bea = Home::new();
    server.join(&bea, "bea", &["--initiator", "hybrid"], &[dir.path()]);
    let away = restore(&server, &tree, &target, "bea", &[]).expect(1);
    assert!(away.err.contains("no link to this server"), "{}", away.err);
    let stranger = restore(&server, &tree, &target, "eve", &[]).expect(1);
    assert!(stranger.err.contains("knows no client"), "{}", stranger.err);

    let agent = bea.start(&["-v", "agent", "run", "--no-listen"]);
    server.says("linked");
    let refused = restore(&server, &tree, &target, "bea", &[]).expect(1);
    assert!(
        refused.err.contains("takes no restores") && refused.err.contains("allow = true"),
        "{}",
        refused.err
    );
    agent.says("is refused");
    assert!(!out.join("in").exists());
    allow(&bea, &out.join("in"));
    let outside = restore(&server, &tree, &out.join("elsewhere"), "bea", &[]).expect(1);
    assert!(outside.err.contains("in no folder that this machine's config allows"), "{}", outside.err);
    let missing = restore(&server, &tree, &target, "bea", &[]).expect(1);
    assert!(missing.err.contains("is not there on that machine: make it first"), "{}", missing.err);
    fs::create_dir(out.join("in")).unwrap();
    let dry = restore(&server, &tree, &target, "bea", &["--dry-run"]).ok();
    assert!(dry.out.contains("would restore") && dry.out.contains("on bea"), "{}", dry.out);
    assert!(!target.exists());
    let done = restore(&server, &tree, &target, "bea", &["--verify", "--json"]).ok().json();
    assert_fits("restore.json", &done);
    assert_eq!(done["to_client"], "bea");
    trees::assert_equal_below(&tree, &target);

    // Again, when not everything can be: it is named as it is on that machine.
    fs::remove_file(target.join("tiny")).unwrap();
    fs::create_dir(target.join("tiny")).unwrap();
    let partial = restore(&server, &tree, &target, "bea", &[]).expect(3);
    let named = format!("not restored: {}: a directory is in its place", target.join("tiny").display());
    assert!(partial.err.contains(&named), "{}", partial.err);
    let again = restore(&server, &tree, &target, "bea", &["--delete"]).ok();
    assert!(again.out.contains("stayed as they are"), "{}", again.out);
    trees::assert_equal(&tree, &target);
}

/// The operator goes in the middle: nothing that was there is lost, and asked again it goes on.
#[test]
fn a_restore_elsewhere_that_is_cut_goes_on_when_it_is_asked_for_again() {
    let (server, dir, out) = (TestServer::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tree, out) = (dir.path().join("tree"), out.path().canonicalize().unwrap());
    fs::create_dir(&tree).unwrap();
    for i in 0..8u64 {
        fs::write(tree.join(i.to_string()), trees::noise(40_000_000, i)).unwrap();
    }
    server.client("ana", &[&tree]).run(&["-q", "backup"]).ok();
    let bea = Home::new();
    server.join(&bea, "bea", &["--initiator", "hybrid"], &[dir.path()]);
    allow(&bea, &out);
    let target = out.join("back");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("7"), "mine").unwrap();
    let _agent = bea.start(&["-v", "agent", "run", "--no-listen"]);
    server.says("linked");
    let what = format!("latest:{}", tree.display());
    let args =
        ["-q", "restore", &what, "-t", target.to_str().unwrap(), "--client", "ana", "--to-client", "bea"];
    let mut running = server.home.command(&args).stderr(Stdio::null()).spawn().unwrap();
    wait_until("something is there", || trees::files(&target).len() > 2);
    running.kill().unwrap();
    running.wait().unwrap();
    // All there is under a name is whole, or as it was.
    let is_part = |path: &Path| path.to_str().unwrap().ends_with(".backhaul-part");
    for path in trees::files(&target).iter().filter(|path| !is_part(path)) {
        let (name, found) = (path.file_name().unwrap().to_str().unwrap(), fs::read(path).unwrap());
        let whole = found == trees::noise(40_000_000, name.parse().unwrap());
        assert!(whole || found == b"mine", "{name} has {} bytes", found.len());
    }
    // The agent may still be about to hear that nobody waits for it.
    wait_until("it is asked for again", || server.home.run(&args).code == 0);
    trees::assert_equal_below(&tree, &target);
}

#[test]
fn a_client_that_only_listens_is_dialled_for_a_restore() {
    let (server, dir, out) = (TestServer::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tree, out) = (trees::everything(dir.path()), out.path().canonicalize().unwrap());
    server.client("ana", &[&tree]).run(&["-q", "backup"]).ok();
    let (cid, address) = server.listener("cid", &[dir.path()]);
    allow(&cid, &out);
    let _agent = cid.start(&["-v", "agent", "run", "--listen", &address]);
    let target = out.join("back");
    restore(&server, &tree, &target, "cid", &[]).ok();
    trees::assert_equal(&tree.join("deep"), &target.join("deep"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_can_order_a_restore() {
    let server = TestServer::new();
    let (ana, _) = (server.client("ana", &[]), server.client("bea", &[]));
    let agent = AgentHome::at(ana.path());
    let link = dial(&agent.config().unwrap().servers, &agent.agent().unwrap()).await.unwrap();
    let remote = Remote::browse(link, "", &Ways::default()).await.unwrap();
    let order = wire::RestoreOrder { to_client: "bea".to_owned(), ..Default::default() };
    tokio::task::block_in_place(|| {
        let heard = remote.order(order).unwrap();
        assert!(heard.recv().is_err(), "it hears of nothing");
        let why = remote.reason().to_string();
        assert!(why.contains("only an operator orders a restore"), "{why}");
    });
}

/// On its own machine: by `latest`, the beginning of an id, a time and an age, all of it or what is wanted.
#[test]
fn the_server_restores_any_snapshot_of_any_client_for_itself() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let (tree, out) = (dir.path().join("tree"), dir.path().join("out"));
    fs::create_dir_all(tree.join("notes")).unwrap();
    fs::write(tree.join("notes/b.txt"), "b").unwrap();
    let save = |client: &Home, text: &str| {
        fs::write(tree.join("a.txt"), text).unwrap();
        client.json(&["backup"])["snapshot"].as_str().unwrap().to_owned()
    };
    let (ana, bea) = (server.client("ana", &[&tree]), server.client("bea", &[&tree]));
    let first = save(&ana, "first of ana");
    // A later second.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let second = save(&ana, "second of ana");
    save(&bea, "of bea");
    let listed = server.home.run(&["snapshots", "--client", "ana"]).ok().out;
    let row = listed.lines().find(|line| line.starts_with(&first[..12])).unwrap();
    let time = row.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join("T");

    for (which, client, text) in [
        ("latest", "ana", "second of ana"),
        ("latest", "bea", "of bea"),
        (&first[..8], "ana", "first of ana"),
        (&second[..8], "ana", "second of ana"),
        (&time, "ana", "first of ana"),
        ("0m ago", "ana", "second of ana"),
    ] {
        let to = out.join(format!("{which} of {client}"));
        let what = format!("{which}:{}", tree.display());
        server.home.run(&["-q", "restore", &what, "-t", to.to_str().unwrap(), "--client", client]).ok();
        assert_eq!(fs::read_to_string(to.join("a.txt")).unwrap(), text, "{which} of {client}");
        assert_eq!(fs::read_to_string(to.join("notes/b.txt")).unwrap(), "b");
    }
    let to = out.join("some");
    let (what, only) = (format!("latest:{}", tree.display()), ["--include", "*.txt", "--exclude", "/**/a.*"]);
    let args = ["-q", "restore", &what, "-t", to.to_str().unwrap(), "--client", "ana"];
    server.home.run(&[&args[..], &only].concat()).ok();
    assert_eq!(trees::files(&to), [to.join("notes/b.txt")]);

    let whose = server.home.run(&args[..5]).expect(2);
    assert!(whose.err.contains("--client NAME"), "{}", whose.err);
    let strange = server.home.run(&[&args[..6], &["anna"]].concat()).expect(1);
    assert!(strange.err.contains("anna"), "{}", strange.err);
    let another =
        server.home.run(&["restore", &first[..8], "-t", to.to_str().unwrap(), "--client", "bea"]).expect(1);
    assert!(another.err.contains("there is no snapshot"), "{}", another.err);
}
