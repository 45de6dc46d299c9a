//! The real binary while networks change under it: in namespaces, and behind a relay.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backhaul_tests::netns::{self, Namespace, Office};
use backhaul_tests::relay::{self, Relay};
use backhaul_tests::{Daemon, Home, binary, free_port, trees, wait_until};

const MEGABYTE: u64 = 1_000_000;

/// 100 files of 1 MB that do not compress.
fn bulk(dir: &Path) -> PathBuf {
    let root = dir.join("bulk");
    std::fs::create_dir(&root).unwrap();
    for i in 0..100 {
        std::fs::write(root.join(format!("{i:03}")), trees::noise(MEGABYTE as usize, i)).unwrap();
    }
    root
}

/// A server that starts nothing by itself, with one client.
fn server(listen: &str, name: &str) -> (Home, Daemon) {
    let home = Home::new();
    home.run(&["server", "init", "--listen", listen, "--name", name]).ok();
    let daemon = home.start(&["-v", "server", "run"]);
    (home, daemon)
}

/// Adds a client on a server: its join code.
fn code(server: &Home, more: &[&str]) -> String {
    let added = server.json(&[&["client", "add", "laptop"], more].concat());
    added["join_code"].as_str().unwrap().to_owned()
}

/// Backs up, does something to the network half-way, and compares what is restored. The run must not notice.
fn backup_while(server: &Home, client: &Home, tree: &Path, happens: impl FnOnce()) {
    // Slowly, so that it is disturbed in the middle.
    let mut running = client.command(&["--json", "-v", "backup", "--limit-upload", "25MB"]);
    let mut running = running.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("some is there", || server.vault_bytes() > 30 * MEGABYTE);
    assert!(running.try_wait().unwrap().is_none(), "too fast to be disturbed");
    happens();
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success() && !said.contains("the run goes on"), "{said}");
    restored(client, tree);
}

fn restored(client: &Home, tree: &Path) {
    let out = tempfile::tempdir().unwrap();
    client.run(&["restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    trees::assert_equal(tree, &out.path().join(tree.strip_prefix("/").unwrap()));
}

/// Backs a laptop up in a place, while its network changes.
fn in_a_place(server_at: &Namespace, laptop: &Namespace, happens: impl FnOnce() + Send) {
    // Outside: it may have to be built.
    binary();
    let (dir, client) = (tempfile::tempdir().unwrap(), Home::new());
    let tree = bulk(dir.path());
    let (home, _daemon) = server_at.inside(|| server("10.77.0.1:4455", "10.77.0.1"));
    let code = server_at.inside(|| code(&home, &[]));
    laptop.inside(|| client.run(&["join", &code, tree.to_str().unwrap()]).ok());
    laptop.inside(|| backup_while(&home, &client, &tree, happens));
}

#[test]
fn a_laptop_roams_from_wifi_to_the_cable_in_the_middle_of_a_run() {
    let Some(mut office) = Office::new() else { return };
    let (server, laptop) = (office.server.clone(), office.laptop.clone());
    in_a_place(&server, &laptop, || office.roam());
}

#[test]
fn a_nat_binds_anew_in_the_middle_of_a_run() {
    let Some(home) = netns::Home::new() else { return };
    in_a_place(&home.server, &home.laptop, || home.rebind());
}

#[test]
fn a_laptop_is_moved_and_far_away_in_the_middle_of_a_run() {
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let relay = Relay::start(listen, relay::Path::default());
    let (home, _daemon) = server(&listen.to_string(), &relay.address().to_string());
    let (dir, client) = (tempfile::tempdir().unwrap(), Home::new());
    let tree = bulk(dir.path());
    client.run(&["join", &code(&home, &[]), tree.to_str().unwrap()]).ok();
    backup_while(&home, &client, &tree, || {
        relay.roam();
        relay.set(relay::Path::delayed(Duration::from_millis(10)));
    });
    assert!(relay.counts().up.bytes > 100 * MEGABYTE, "{:?}", relay.counts());
    assert!(relay.exits().iter().all(|exit| exit.ip().to_string() == "127.0.0.2"));
}

#[test]
fn a_server_pulls_through_a_router() {
    let Some(office) = Office::new() else { return };
    binary();
    let (dir, client) = (tempfile::tempdir().unwrap(), Home::new());
    let tree = trees::everything(dir.path());
    let (home, _daemon) = office.server.inside(|| server("10.77.0.1:4455", "10.77.0.1"));
    let address = format!("{}:4456", office.link().address());
    let code = office.server.inside(|| code(&home, &["--initiator", "pull", "--address", &address]));
    office.laptop.inside(|| client.run(&["join", &code, tree.to_str().unwrap()]).ok());
    let _agent = office.laptop.inside(|| client.start(&["agent", "run"]));
    let run = office.server.inside(|| home.json(&["client", "run", "laptop", "--wait"]));
    assert_eq!(run[0]["state"].as_str(), Some("done"), "{run}");
    office.laptop.inside(|| restored(&client, &tree));
}

/// Joins a laptop that keeps a link, and starts its agent.
fn attend(server: &Home, laptop: &Namespace, client: &Home, tree: &Path, code: &str) -> Daemon {
    laptop.inside(|| client.run(&["join", code, tree.to_str().unwrap()]).ok());
    let agent = laptop.inside(|| client.start(&["-v", "agent", "run", "--no-listen"]));
    wait_until("its link stands", || server.json(&["status"])[0]["link"] == "standing");
    agent
}

#[test]
fn a_link_is_quieter_where_no_address_is_translated_and_only_there() {
    let (Some(mut office), Some(home)) = (Office::new(), netns::Home::new()) else { return };
    binary();
    let dir = tempfile::tempdir().unwrap();
    let tree = trees::everything(dir.path());
    let paces = |agent: &Daemon, seconds: u32| {
        agent.said().matches(&format!("for a link with a packet in {seconds} s")).count()
    };
    let at_home = Home::new();
    let (server_there, _daemon) = home.server.inside(|| server("10.77.0.1:4455", "10.77.0.1"));
    let invited = home.server.inside(|| code(&server_there, &["--initiator", "hybrid"]));
    let behind_nat = attend(&server_there, &home.laptop, &at_home, &tree, &invited);

    let at_work = Home::new();
    let (server_here, daemon_here) = office.server.inside(|| server("10.77.0.1:4455", "10.77.0.1"));
    let invited = office.server.inside(|| code(&server_here, &["--initiator", "hybrid"]));
    let agent = attend(&server_here, &office.laptop, &at_work, &tree, &invited);
    // What is learned in the middle of a move is of the network that it was in.
    wait_until("it finds that nothing is translated, and is linked anew", || {
        paces(&agent, 100) > 0 && daemon_here.said().matches("linked").count() > 1
    });
    // It may have dialled again meanwhile, for other reasons.
    let (quick, slow) = (paces(&agent, 25), paces(&agent, 100));
    office.roam();
    wait_until("it does not rely on that elsewhere", || paces(&agent, 25) > quick);
    wait_until("it finds it again", || paces(&agent, 100) > slow);
    wait_until("its link stands", || server_here.json(&["status"])[0]["link"] == "standing");
    assert!(paces(&behind_nat, 25) > 0 && paces(&behind_nat, 100) == 0, "{}", behind_nat.said());
}
