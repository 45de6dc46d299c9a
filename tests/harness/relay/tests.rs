//! The relay against servers that say what they see.

use std::io::Write;
use std::sync::atomic::AtomicU64;

use super::*;

const SOON: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_millis(150);

/// A server that says to each where it sees it, and what it heard.
struct Echo {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start() -> Self {
        let socket = socket(Ipv4Addr::LOCALHOST.into()).unwrap();
        let (address, ended) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stop = ended.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2_000];
            while !stop.load(Ordering::SeqCst) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                let heard = String::from_utf8_lossy(&buffer[..length]);
                let _ = socket.send_to(format!("{peer} {heard}").as_bytes(), peer);
            }
        });
        Self { address, ended, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = self.thread.take().unwrap().join();
    }
}

fn client(relay: &Relay) -> UdpSocket {
    let socket = socket(Ipv4Addr::LOCALHOST.into()).unwrap();
    socket.connect(relay.address()).unwrap();
    socket
}

fn hear(client: &UdpSocket, patience: Duration) -> Option<(SocketAddr, String)> {
    client.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 2_000];
    let length = client.recv(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let (peer, said) = text.split_once(' ').unwrap();
    Some((peer.parse().unwrap(), said.to_owned()))
}

fn ask(client: &UdpSocket, what: &str, patience: Duration) -> Option<(SocketAddr, String)> {
    client.send(what.as_bytes()).unwrap();
    hear(client, patience)
}

#[test]
fn a_delay_is_taken_each_way_and_changes_live() {
    let echo = Echo::start();
    let relay = Relay::start(echo.address, Path::delayed(Duration::from_millis(30)));
    let client = client(&relay);
    let round = || {
        let start = Instant::now();
        ask(&client, "there?", SOON).unwrap();
        start.elapsed()
    };
    // A busy machine adds to it, but not each time.
    let often = || (0..1_000).map(|_| round());
    let slow = Duration::from_millis(60);
    assert!(often().take(5).all(|took| took >= slow));
    assert!(often().any(|took| took < slow + slow / 2));
    relay.set(Path::default());
    assert!(often().any(|took| took < slow / 3));
}

#[test]
fn packets_keep_their_order_while_the_delay_changes() {
    let echo = Echo::start();
    let relay = Relay::start(echo.address, Path::delayed(Duration::from_millis(20)));
    let client = client(&relay);
    for i in 0..400 {
        if i % 40 == 0 {
            relay.set(Path::delayed(Duration::from_millis(20 * (i / 40 % 2))));
        }
        client.send(i.to_string().as_bytes()).unwrap();
    }
    for i in 0..400 {
        assert_eq!(hear(&client, SOON).unwrap().1, i.to_string());
    }
}

#[test]
fn jitter_lets_packets_overtake() {
    let echo = Echo::start();
    let jitter = Duration::from_millis(40);
    let relay = Relay::start(echo.address, Path { jitter, ..Path::default() });
    let client = client(&relay);
    (0..100).for_each(|i| assert!(client.send(i.to_string().as_bytes()).is_ok()));
    let heard: Vec<u64> = (0..100).map(|_| hear(&client, SOON).unwrap().1.parse().unwrap()).collect();
    assert!(!heard.is_sorted());
}

/// Which of so many packets arrive at the server and back.
fn survivors(seed: u64) -> Vec<String> {
    let echo = Echo::start();
    let relay = Relay::start(echo.address, Path::lossy(0.1, seed));
    let client = client(&relay);
    let mut heard = Vec::new();
    // Some at a time: no socket has room for all.
    for sent in (0..2_000).step_by(50) {
        (sent..sent + 50).for_each(|i| assert!(client.send(i.to_string().as_bytes()).is_ok()));
        crate::wait_until("their fate is known", || {
            let Counts { up, down } = relay.counts();
            up.packets + up.dropped == sent + 50 && down.packets + down.dropped == up.packets
        });
        while heard.len() < relay.counts().down.packets as usize {
            heard.push(hear(&client, SOON).unwrap().1);
        }
    }
    let counts = relay.counts();
    assert_eq!(counts.up.packets + counts.up.dropped, 2_000);
    assert!((150..250).contains(&counts.up.dropped), "{counts:?}");
    assert!((130..230).contains(&counts.down.dropped), "{counts:?}");
    heard
}

#[test]
fn the_same_packets_are_lost_for_the_same_seed() {
    let first = survivors(1);
    assert_eq!(first, survivors(1));
    assert_ne!(first, survivors(2));
}

#[test]
fn the_server_sees_new_ports_and_the_old_ones_are_closed() {
    let echo = Echo::start();
    let relay = Relay::start(echo.address, Path::default());
    let (one, other) = (client(&relay), client(&relay));
    let before = [ask(&one, "a", SOON).unwrap().0, ask(&other, "b", SOON).unwrap().0];
    assert_ne!(before[0], before[1]);
    relay.readdress();
    for old in before {
        drop(UdpSocket::bind(old).unwrap());
    }
    let after = [ask(&one, "a", SOON).unwrap().0, ask(&other, "b", SOON).unwrap().0];
    assert!(after.iter().all(|new| !before.contains(new) && new.ip() == before[0].ip()), "{after:?}");
    assert!(after.iter().all(|new| relay.exits().contains(new)));
    relay.roam();
    assert_eq!(ask(&one, "a", SOON).unwrap().0.ip(), Ipv4Addr::new(127, 0, 0, 2));
}

#[test]
fn nothing_passes_a_cut_line() {
    let echo = Echo::start();
    let relay = Relay::start(echo.address, Path::default());
    relay.set_each(Path::delayed(Duration::from_secs(2)), Path::default());
    let client = client(&relay);
    client.send(b"under way").unwrap();
    std::thread::sleep(Duration::from_millis(10));
    relay.cut();
    assert_eq!(ask(&client, "cut", NEVER), None);
    crate::wait_until("both are lost", || relay.counts().up.dropped == 2);
    relay.mend();
    assert_eq!(ask(&client, "mended", SOON).unwrap().1, "mended");
    let counts = relay.counts();
    assert_eq!((counts.up.packets, counts.up.bytes, counts.up.dropped), (1, 6, 2));
    assert_eq!((counts.down.packets, counts.down.dropped), (1, 0));
}

#[test]
fn a_forgotten_client_hears_nothing_before_it_speaks() {
    let server = socket(Ipv4Addr::LOCALHOST.into()).unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    let relay = Relay::start(server.local_addr().unwrap(), Path::default());
    let client = client(&relay);
    let mut buffer = [0; 10];
    client.send(b"here").unwrap();
    let (_, first) = server.recv_from(&mut buffer).unwrap();
    relay.forget();
    server.send_to(b"x lost", first).unwrap();
    assert_eq!(hear(&client, NEVER), None);
    client.send(b"again").unwrap();
    // The refusal of the old port may come first.
    let second = std::iter::repeat_with(|| server.recv_from(&mut buffer)).find_map(Result::ok).unwrap().1;
    assert_ne!(first.port(), second.port());
    server.send_to(format!("{second} found").as_bytes(), second).unwrap();
    assert_eq!(hear(&client, SOON).unwrap().1, "found");
}

/// Bytes per second that come through in order.
fn throughput(path: Path, total: u64) -> f64 {
    const PACKET: usize = 1_452;
    let server = socket(Ipv4Addr::LOCALHOST.into()).unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    let relay = Relay::start(server.local_addr().unwrap(), path);
    let client = client(&relay);
    let packets = total / PACKET as u64;
    let got = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2_000];
            for i in 0..packets {
                server.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..8], i.to_le_bytes());
                got.store(i, Ordering::Relaxed);
            }
        });
        let mut packet = [7; PACKET];
        for i in 0..packets {
            // Not more under way than every buffer holds.
            while i > got.load(Ordering::Relaxed) + 2_000 && start.elapsed() < 4 * SOON {
                std::thread::sleep(Duration::from_micros(200));
            }
            packet[..8].copy_from_slice(&i.to_le_bytes());
            client.send(&packet).unwrap();
        }
    });
    total as f64 / start.elapsed().as_secs_f64()
}

#[test]
fn a_rate_is_kept() {
    let rate = 4_000_000;
    let server = socket(Ipv4Addr::LOCALHOST.into()).unwrap();
    let path = Path { rate_limit: Some(rate), ..Path::default() };
    let relay = Relay::start(server.local_addr().unwrap(), path);
    let client = client(&relay);
    let start = Instant::now();
    // Far more at once than passes, until some has passed.
    crate::wait_until("a part has passed", || {
        (0..1_000).for_each(|_| assert!(client.send(&[0; 1_000]).is_ok()));
        relay.counts().up.bytes > 2_000_000 && relay.counts().up.dropped > 0
    });
    let (counts, taken) = (relay.counts().up, start.elapsed().as_secs_f64());
    let measured = counts.bytes as f64 / taken;
    assert!(measured < 1.2 * rate as f64, "{measured} {counts:?}");
}

#[test]
fn a_bulk_of_packets_comes_through_whole_and_in_order() {
    assert!(throughput(Path::default(), 30_000_000) > 0.0);
    assert!(throughput(Path::delayed(Duration::from_millis(5)), 10_000_000) > 0.0);
}

#[test]
#[ignore = "a measurement that needs two idle cores: cargo test --release -p backhaul-tests --lib -- --ignored relay"]
fn a_line_without_delay_carries_100_megabytes_a_second() {
    let at_once = throughput(Path::default(), 500_000_000);
    assert!(at_once >= 100e6, "{at_once}");
    writeln!(io::stderr(), "{:.0} MB/s", at_once / 1e6).unwrap();
}
