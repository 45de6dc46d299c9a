//! What a policy asks for is kept to, from the first byte of the first run on, and wherever a client is.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use backhaul_tests::relay::{self, Relay};
use backhaul_tests::{Done, Home, TestServer, free_port, trees, wait_until};

const MEGABYTE: usize = 1_000_000;

fn bulk(dir: &Path, megabytes: usize) {
    for i in 0..megabytes {
        fs::write(dir.join(format!("{i}")), trees::noise(MEGABYTE, 1_000 + i as u64)).unwrap();
    }
}

fn snapshots(server: &TestServer, client: &str) -> usize {
    server.home.json(&["snapshots", "--client", client]).as_array().unwrap().len()
}

#[test]
fn the_first_run_of_a_client_keeps_to_the_policys_upload_limit_by_hand_and_by_itself() {
    let policy = TestServer::due_policy() + "limit_upload = \"500kB\"\n";
    let (server, dir, other) =
        (TestServer::with_policy(&policy), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    bulk(dir.path(), 2);
    // Other bytes than the first has sent: they would not be sent again.
    fs::write(other.path().join("file"), trees::noise(2 * MEGABYTE, 7)).unwrap();
    let by_hand = server.client("by-hand", &[dir.path()]);
    let start = Instant::now();
    by_hand.run(&["backup"]).ok();
    // Two megabytes at a half a second, less what passes at once.
    assert!(start.elapsed() >= Duration::from_millis(2_000), "{:?}", start.elapsed());
    let by_itself = server.client("by-itself", &[other.path()]);
    let start = Instant::now();
    let _agent = by_itself.start(&["agent", "run", "--no-listen"]);
    wait_until("it is backed up", || snapshots(&server, "by-itself") == 1);
    assert!(start.elapsed() >= Duration::from_millis(2_000), "{:?}", start.elapsed());
    // Somebody at the machine may want it faster: this would be a minute.
    fs::write(dir.path().join("more"), trees::noise(30 * MEGABYTE, 9)).unwrap();
    let start = Instant::now();
    by_hand.run(&["-q", "backup", "--limit-upload", "1GB"]).ok();
    assert!(start.elapsed() < Duration::from_secs(50), "{:?}", start.elapsed());
}

#[test]
fn a_laptop_that_has_moved_is_not_held_to_the_rate_of_where_it_was() {
    let policy = TestServer::due_policy()
        + "[groups]\nslow = [\"127.0.0.2/32\"]\n[admission]\nbytes_per_group = { slow = \"50kB\" }\n";
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let relay = Relay::start(listen, relay::Path::default());
    let server = TestServer::at(&listen.to_string(), &relay.address().to_string(), &policy);
    let (dir, laptop) = (tempfile::tempdir().unwrap(), Home::new());
    fs::write(dir.path().join("small"), "small").unwrap();
    server.join(&laptop, "laptop", &[], &[dir.path()]);
    relay.roam();
    laptop.run(&["backup"]).ok();
    bulk(dir.path(), 5);
    relay.roam();
    let start = Instant::now();
    laptop.run(&["backup"]).ok();
    // 5 MB at 50 kB/s would be 100 s.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

/// What the kernel says of every thread of a process: its nice value, and its class and level for the disk.
fn competes(pid: u32) -> BTreeSet<(i64, String)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        // Fields after the name, which may hold spaces: the nice value is the nineteenth of all.
        let nice = stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()?;
        let mut ask = Command::new("ionice");
        ask.arg("-p").arg(thread.file_name());
        let said = Done::of(ask);
        (said.code == 0).then(|| (nice, said.out.trim().to_owned()))
    };
    threads.filter_map(of).collect()
}

#[test]
fn an_agent_is_behind_what_people_wait_for_with_processor_and_disk_unless_its_policy_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    bulk(dir.path(), 20);
    // Whoever runs the tests may be behind others already.
    let own = competes(std::process::id()).into_iter().next().unwrap();
    for (yields, expected) in [(true, (own.0.max(10), "best-effort: prio 7".to_owned())), (false, own)] {
        let slow = format!("limit_upload = \"2MB\"\nyields = {yields}\n");
        let server = TestServer::with_policy(&(TestServer::due_policy() + &slow));
        let client = server.client("laptop", &[dir.path()]);
        // It hears of the policy, and is started by it the next time.
        let terms = client.path().join("agent/terms.json");
        let agent = client.start(&["agent", "run", "--no-listen"]);
        wait_until("it keeps to the policy", || terms.exists());
        drop(agent);
        let agent = client.start(&["agent", "run", "--no-listen"]);
        // The threads of a run, too.
        let before = server.vault_bytes();
        wait_until("a run goes on", || server.vault_bytes() > before + 2_000_000);
        let competes = competes(agent.pid());
        assert_eq!(competes, BTreeSet::from([expected]), "yields = {yields}");
    }
}
