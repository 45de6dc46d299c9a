//! Laptops whose agents run by themselves: networks that come late and change, sleep, nudges, pauses, and machines that
//! the server does not reach.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backhaul_tests::netns::{self, Namespace, Office};
use backhaul_tests::relay::{self, Relay};
use backhaul_tests::{Home, TestServer, binary, free_port, trees, wait_until};
use serde_json::Value;

const MEGABYTE: u64 = 1_000_000;
/// Less than the time after which a silent connection is given up.
const PATIENT: Duration = Duration::from_secs(45);

/// What slows an upload enough to be disturbed.
const SLOW: &str = "limit_upload = \"10MB\"\n";

/// Everybody is due, once a day; with more lines.
fn daily(more: &str) -> String {
    TestServer::due_policy()
        + more
        + "standing = { keepalive = \"5s\" }\ncheckin = { when_late = \"60s\", join_jitter = \"1s\" }\n\
           [admission]\nslots = 2\n"
}

/// Due every five seconds.
const OFTEN: &str = "[policy.default]\nperiod = \"5s\"\nspread = \"1s\"\nstanding = { keepalive = \"5s\" }\n\
                     checkin = { when_late = \"60s\", join_jitter = \"1s\" }\n[admission]\nslots = 2\n";

/// Files of 1 MB that do not compress, and do not depend on the place.
fn bulk(dir: &Path, files: u64) -> PathBuf {
    let root = dir.join("bulk");
    fs::create_dir_all(&root).unwrap();
    for i in 0..files {
        fs::write(root.join(format!("{i:03}")), trees::noise(MEGABYTE as usize, i)).unwrap();
    }
    root
}

fn runs(server: &TestServer, client: &str) -> Vec<Value> {
    server.home.json(&["runs", "--client", client]).as_array().unwrap().clone()
}

/// By the server's own book: in a namespace it cannot be dialled from here.
fn snapshots(server: &TestServer, client: &str) -> usize {
    runs(server, client).iter().filter(|run| run["snapshot"].is_string()).count()
}

fn status(server: &TestServer, client: &str) -> Value {
    let all = server.home.json(&["status"]);
    all.as_array().unwrap().iter().find(|row| row["client"] == client).unwrap().clone()
}

fn is_linked(server: &TestServer, client: &str) -> bool {
    status(server, client)["link"] == "standing"
}

fn assert_one_run(server: &TestServer, client: &str, trigger: &str) {
    let runs = runs(server, client);
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(
        (runs[0]["state"].as_str(), runs[0]["trigger"].as_str()),
        (Some("done"), Some(trigger)),
        "{runs:?}"
    );
    assert_eq!(snapshots(server, client), 1);
}

/// Waits until something is true, and says how long that took.
fn time_until(what: &str, is: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    wait_until(what, is);
    start.elapsed()
}

/// Bytes that a machine has sent over a link.
fn sent(machine: &Namespace, link: &str) -> u64 {
    let shown: Value = serde_json::from_str(&machine.ip(&["-s", "-j", "link", "show", "dev", link])).unwrap();
    shown[0]["stats64"]["tx"]["bytes"].as_u64().unwrap()
}

/// Bytes that a process has read of files so far: what comes over sockets is received, and does not count.
fn read_of_files(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// Says a figure past the capture of tests.
fn measured(what: &str, figure: Duration) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "measured: {what}: {} ms", figure.as_millis());
}

#[test]
fn a_laptop_backs_up_by_itself_when_a_network_comes_and_roams_without_a_break() {
    let Some(mut office) = Office::new() else { return };
    binary();
    let (dir, laptop) = (tempfile::tempdir().unwrap(), Home::new());
    let tree = bulk(dir.path(), 80);
    let server = office.server.inside(|| TestServer::at("10.77.0.1:4455", "10.77.0.1", &daily(SLOW)));
    office.laptop.inside(|| server.join(&laptop, "laptop", &["--initiator", "hybrid"], &[&tree]));
    office.leave();
    let agent = office.laptop.inside(|| laptop.start(&["-v", "agent", "run", "--no-listen"]));
    // Its first dial is in vain.
    agent.says("the server is not reached");
    office.join();
    let began = time_until("a run has begun by itself", || server.vault_bytes() > 15 * MEGABYTE);
    measured("network up to 15 MB in the vault", began);
    office.roam();
    let moved = Instant::now();
    let (cable, before) = (office.link().name(), sent(&office.laptop, "cable"));
    wait_until("bytes flow on the new path", || sent(&office.laptop, cable) > before + 2 * MEGABYTE);
    measured("roamed to 2 MB on the new path", moved.elapsed());
    // Not when the old path has been given up: how soon is measured in benches/laptop.
    assert!(moved.elapsed() < PATIENT, "{:?}", moved.elapsed());
    let vault = server.vault_bytes();
    wait_until("they arrive", || server.vault_bytes() > vault + 4 * MEGABYTE);
    wait_until("the run is over", || snapshots(&server, "laptop") == 1);
    assert_one_run(&server, "laptop", "join");
    let said = agent.said();
    assert!(!said.contains("the run goes on") && !said.contains("looking for the server"), "{said}");
    wait_until("its link stands", || is_linked(&server, "laptop"));
}

#[test]
fn a_laptop_that_slept_in_an_upload_finds_its_way_and_sends_only_what_was_missing() {
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let relay = Relay::start(listen, relay::Path::default());
    let server = TestServer::at(&listen.to_string(), &relay.address().to_string(), &daily(SLOW));
    let (dir, laptop) = (tempfile::tempdir().unwrap(), Home::new());
    let tree = bulk(dir.path(), 200);
    server.join(&laptop, "laptop", &["--initiator", "hybrid"], &[&tree]);
    let agent = laptop.start(&["-v", "agent", "run", "--no-listen"]);
    wait_until("much is there", || server.vault_bytes() > 150 * MEGABYTE);
    let before = read_of_files(agent.pid());
    netns::freeze(agent.pid());
    // The NAT forgets it, and the network is another one that does not work at first.
    relay.forget();
    relay.cut();
    std::thread::sleep(Duration::from_millis(35_500));
    netns::thaw(agent.pid());
    let awake = Instant::now();
    agent.says("slept for");
    measured("awake to noticed", awake.elapsed());
    // By its own word or by that of the connection, whose time may have run out as soon as it is awake.
    wait_until("it gives its link up", || {
        ["the link did not survive", "the link is gone"].iter().any(|words| agent.said().contains(words))
    });
    relay.mend();
    let mended = Instant::now();
    wait_until("it is linked anew", || {
        server.said().matches("linked").count() >= 2 && is_linked_or_runs(&server)
    });
    measured("network back to linked", mended.elapsed());
    wait_until("the run is over", || snapshots(&server, "laptop") == 1);
    measured("network back to the end of the run", mended.elapsed());
    assert_one_run(&server, "laptop", "join");
    wait_until("its link stands", || is_linked(&server, "laptop"));
    agent.says("the run goes on");
    // The walk goes on where it was: whoever began anew would read all 200 MB of it.
    let read = read_of_files(agent.pid()) - before;
    assert!((MEGABYTE..80 * MEGABYTE).contains(&read), "{read} bytes were read after 150 MB were there");
    // All of it once, what nobody had said to be durable when it slept (100 MB were seen on a busy disk), and headers;
    // with all that had arrived sent again it would be 350 MB and more.
    let up = relay.counts().up.bytes;
    assert!(up < 340 * MEGABYTE, "{up} bytes were sent");
    assert!(server.vault_bytes() < 220 * MEGABYTE, "{}", server.vault_bytes());
}

fn is_linked_or_runs(server: &TestServer) -> bool {
    ["standing", "push"].contains(&status(server, "laptop")["link"].as_str().unwrap())
}

#[test]
fn a_nudge_starts_a_run_that_is_not_due_and_a_run_by_hand_goes_over_the_standing_link() {
    let server = TestServer::with_policy(&daily(""));
    let (dir, laptop) = (tempfile::tempdir().unwrap(), Home::new());
    let tree = bulk(dir.path(), 1);
    server.join(&laptop, "laptop", &["--initiator", "hybrid"], &[&tree]);
    let agent = laptop.start(&["-vv", "agent", "run", "--no-listen"]);
    wait_until("it is protected and linked", || {
        snapshots(&server, "laptop") == 1 && is_linked(&server, "laptop")
    });
    fs::write(tree.join("more"), trees::noise(20 * MEGABYTE as usize, 99)).unwrap();
    let (asked, vault) = (Instant::now(), server.vault_bytes());
    server.home.run(&["client", "nudge", "laptop"]).ok();
    let mut heard: Option<Instant> = None;
    wait_until("its first bytes are there", || {
        if heard.is_none() && agent.said().contains("Push { trigger: Nudge") {
            heard = Some(Instant::now());
        }
        server.vault_bytes() > vault
    });
    let first = heard.unwrap().elapsed();
    measured("`client nudge` to the first byte", asked.elapsed());
    measured("nudge heard to the first byte", first);
    // Nothing else would have begun it: it is not due, and a check-in is far. How soon is measured in benches/laptop.
    assert!(asked.elapsed() < PATIENT, "{:?}", asked.elapsed());
    wait_until("there is a second snapshot", || snapshots(&server, "laptop") == 2);
    assert!(
        runs(&server, "laptop").iter().any(|run| run["trigger"] == "nudge"),
        "{:?}",
        runs(&server, "laptop")
    );
    wait_until("its link stands", || is_linked(&server, "laptop"));
    let run = server.home.json(&["client", "run", "laptop", "--wait"]);
    assert_eq!(run[0]["state"].as_str(), Some("done"), "{run}");
    assert_eq!(snapshots(&server, "laptop"), 3);
}

#[test]
fn whoever_cannot_be_nudged_comes_by_itself_and_pauses_hold_until_they_end() {
    let server = TestServer::with_policy(OFTEN);
    let dir = tempfile::tempdir().unwrap();
    let tree = bulk(dir.path(), 1);
    let (linked, visitor) = (Home::new(), Home::new());
    server.join(&linked, "linked", &["--initiator", "hybrid"], &[&tree]);
    server.join(&visitor, "visitor", &["--initiator", "client"], &[&tree]);
    let _linked = linked.start(&["-v", "agent", "run", "--no-listen"]);
    let _visitor = visitor.start(&["-v", "agent", "run", "--no-listen"]);
    wait_until("both come again", || ["linked", "visitor"].iter().all(|name| snapshots(&server, name) >= 2));
    let triggers =
        |name| runs(&server, name).iter().map(|run| run["trigger"].to_string()).collect::<Vec<_>>();
    assert!(triggers("visitor").iter().any(|trigger| trigger == "\"timer\""), "{:?}", triggers("visitor"));
    // It is there for a moment, now and then.
    wait_until("it keeps no link", || status(&server, "visitor")["link"] != "standing");

    server.home.run(&["client", "pause", "linked"]).ok();
    gated(&server, "paused on the server");
    holds_while_another_goes_on(&server);
    server.home.run(&["client", "resume", "linked"]).ok();
    let before = snapshots(&server, "linked");
    wait_until("it goes on", || snapshots(&server, "linked") > before);

    linked.run(&["agent", "pause"]).ok();
    gated(&server, "paused by the user");
    holds_while_another_goes_on(&server);
    linked.run(&["agent", "resume"]).ok();
    let before = snapshots(&server, "linked");
    wait_until("it goes on", || snapshots(&server, "linked") > before);
}

fn gated(server: &TestServer, why: &str) {
    wait_until("status says that it is gated", || {
        let row = status(server, "linked");
        row["obstacle"] == "gated" && row["why"].as_str().unwrap().contains(why)
    });
}

/// Two periods of another client pass, and this one makes no snapshot.
fn holds_while_another_goes_on(server: &TestServer) {
    let (before, other) = (snapshots(server, "linked"), snapshots(server, "visitor"));
    wait_until("the other goes on", || snapshots(server, "visitor") >= other + 2);
    assert_eq!(snapshots(server, "linked"), before, "{:?}", runs(server, "linked"));
}

#[test]
fn a_client_that_the_server_does_not_reach_comes_by_itself_and_is_dialled_again_later() {
    let server = TestServer::with_policy(OFTEN);
    let dir = tempfile::tempdir().unwrap();
    let tree = bulk(dir.path(), 1);
    let (desk, nobody) = (Home::new(), format!("127.0.0.1:{}", free_port()));
    server.join(&desk, "desk", &["--initiator", "server", "--address", &nobody], &[&tree]);
    wait_until("it was dialled in vain", || {
        status(&server, "desk")["why"].as_str().unwrap().contains("in vain")
    });
    let agent = desk.start(&["-v", "agent", "run", "--no-listen"]);
    let came = time_until("it comes by itself", || snapshots(&server, "desk") > 0);
    measured("agent started to its snapshot", came);
    let first = runs(&server, "desk");
    let done = first.iter().find(|run| run["state"] == "done").unwrap();
    assert_eq!(
        (done["initiator"].as_str(), done["trigger"].as_str()),
        (Some("client"), Some("join")),
        "{done}"
    );
    agent.terminate();

    let right = format!("127.0.0.1:{}", free_port());
    server.home.run(&["client", "edit", "desk", "--address", &right]).ok();
    let _agent = desk.start(&["-v", "agent", "run", "--listen", &right]);
    let pulled = time_until("it is pulled", || {
        let runs = runs(&server, "desk");
        runs.iter()
            .any(|run| run["state"] == "done" && run["trigger"] == "dialled" && run["initiator"] == "server")
    });
    measured("reachable again to pulled", pulled);
}
