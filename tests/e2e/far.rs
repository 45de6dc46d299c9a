//! Lines that are long, narrow, or bad. Over a long one it counts how often one end waits for the other: a handful of times,
//! however many objects there are.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use backhaul_tests::relay::{self, Relay};
use backhaul_tests::{Home, TestServer, free_port, measured, trees};

/// Each way.
const DELAY: Duration = Duration::from_millis(250);
/// Round trips more than without a delay.
const ROUND_TRIPS_MAX: f64 = 8.0;

/// Contents that the server is asked about: more than in one question, several times over.
const FILES: u64 = 6_000;

/// Many small files in folders of folders, whose contents are nowhere else.
fn many(root: &Path, seed: u64) {
    for i in 0..FILES {
        let dir = root.join(format!("{}/{}/{}", i % 4, i % 20, i % 200));
        if i < 200 {
            fs::create_dir_all(&dir).unwrap();
        }
        fs::write(dir.join(format!("{i}")), trees::noise(520, seed * FILES + i)).unwrap();
    }
}

/// What a sender may send before it has heard anything: it doubles with each round trip, however good the line is.
const INITIAL_WINDOW: f64 = 38_400.0;

/// Measures commands over a line without delay and over a long one.
struct Line {
    relay: Relay,
}

impl Line {
    /// In how many round trips more a command is done over the long one, beyond those that its bytes take by themselves.
    fn round_trips(&self, near: &Home, far: &Home, args: &[&str]) -> f64 {
        let timed = |home: &Home| {
            let start = Instant::now();
            home.run(args).ok();
            start.elapsed()
        };
        let base = timed(near);
        self.relay.set(relay::Path::delayed(DELAY));
        let before = self.relay.counts();
        let took = timed(far);
        let after = self.relay.counts();
        self.relay.set(relay::Path::default());
        let bytes = (after.up.bytes - before.up.bytes).max(after.down.bytes - before.down.bytes);
        let own = (1.0 + bytes as f64 / INITIAL_WINDOW).log2();
        took.saturating_sub(base).as_secs_f64() / (2.0 * DELAY.as_secs_f64()) - own
    }
}

#[test]
fn a_long_way_costs_a_handful_of_round_trips_however_many_objects_there_are() {
    let (dir, listen) = (tempfile::tempdir().unwrap(), SocketAddr::from(([127, 0, 0, 1], free_port())));
    let line = Line { relay: Relay::start(listen, relay::Path::default()) };
    let name = line.relay.address().to_string();
    let server = TestServer::at(&listen.to_string(), &name, &TestServer::quiet_policy());
    let client = |name: &str, write: &dyn Fn(&Path)| {
        let (home, tree) = (Home::new(), dir.path().join(name));
        fs::create_dir(&tree).unwrap();
        write(&tree);
        server.join(&home, name, &[], &[&tree]);
        home
    };
    let backup = ["-q", "backup", "--still", "off"];
    let steps = [("first", &backup[..]), ("unchanged", &backup), ("list", &["ls", "-R", "latest:/"])];
    // Time is all that there is to count by, and others have the machine, too: what is as it should be once is so.
    let measure = |n: u64| {
        let one = |name: &str, seed: u64| client(&format!("{name}-{n}"), &|tree| many(tree, 2 * n + seed));
        let (near, far) = (one("near", 0), one("far", 1));
        let trips = steps.map(|(step, args)| (step, line.round_trips(&near, &far, args)));
        trips.into_iter().filter(|(_, trips)| *trips > ROUND_TRIPS_MAX).collect::<Vec<_>>()
    };
    let mut tries = (0..3).map(measure);
    let mut too_many = tries.next().unwrap();
    while let (false, Some(again)) = (too_many.is_empty(), tries.next()) {
        too_many.retain(|(step, _)| again.iter().any(|(other, _)| step == other));
    }
    assert!(too_many.is_empty(), "round trips, each time: {too_many:.1?}");
}

/// What the standard asks of every path (RFC 9000, section 14), and no more.
const SMALLEST: usize = 1_200;
/// What an agent and a server may take, in MiB.
const MEMORY_MAX: (f64, f64) = (128.0, 257.0);

fn peak_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1_024.0
}

#[test]
fn a_path_that_takes_the_smallest_packets_only_and_loses_some_carries_a_backup() {
    let (dir, listen) = (tempfile::tempdir().unwrap(), SocketAddr::from(([127, 0, 0, 1], free_port())));
    let relay = Relay::start(listen, relay::Path::default());
    let name = relay.address().to_string();
    let server = TestServer::at(&listen.to_string(), &name, &TestServer::quiet_policy());
    let (client, tree) = (Home::new(), dir.path().join("tree"));
    fs::create_dir(&tree).unwrap();
    for i in 0..30 {
        fs::write(tree.join(format!("{i}")), trees::noise(40_000 + 10_000 * i as usize, i)).unwrap();
    }
    server.join(&client, "attic", &[], &[&tree]);
    let before = relay.counts().up;
    relay.set(relay::Path { loss: 0.02, seed: 5, largest: Some(SMALLEST), ..relay::Path::default() });
    let (done, agent) = measured(client.command(&["-q", "backup", "--still", "off"]));
    relay.set(relay::Path::default());
    done.ok();
    let (after, server_peak) = (relay.counts().up, peak_mib(server.pid().unwrap()));
    assert!(after.dropped - before.dropped > 50, "{after:?}");
    assert!((after.bytes - before.bytes) / (after.packets - before.packets) <= SMALLEST as u64);
    assert!(agent <= MEMORY_MAX.0 && server_peak <= MEMORY_MAX.1, "{agent:.0} and {server_peak:.0} MiB");
    let out = dir.path().join("out");
    client.run(&["-q", "restore", "latest", "-t", out.to_str().unwrap()]).ok();
    trees::assert_equal(&tree, &out.join(tree.strip_prefix("/").unwrap()));
}
