//! A line between a client and a server on loopback: slow, lossy, cut, or at a new address when a test says so.
//!
//! It carries datagrams one by one in threads and keeps their order in each direction while there is no
//! jitter. It does not keep the ECN bits.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, sockopt};

/// Longest that a packet waits for its turn on a line with a rate limit: what would wait longer is dropped.
const QUEUE: Duration = Duration::from_millis(100);

/// How often a thread looks up from its socket.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Bytes that the kernel keeps for us while another thread has the processor.
const SOCKET_BUFFER: usize = 16 << 20;

/// What a line does to the packets of each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Path {
    /// From one end to the other, each way.
    pub delay: Duration,
    /// At most so much is added to the delay, at random: packets overtake each other.
    pub jitter: Duration,
    /// The share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// Bytes per second, each way.
    pub rate_limit: Option<u64>,
    /// Which packets are lost: the same ones for the same seed, counted from `start` or `set`.
    pub seed: u64,
}

impl Path {
    /// A line that is only long.
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// A line that only loses packets.
    pub fn lossy(loss: f64, seed: u64) -> Self {
        Self { loss, seed, ..Self::default() }
    }
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets handed on.
    pub packets: u64,
    /// Bytes in them, without UDP and IP headers.
    pub bytes: u64,
    /// Packets that were lost, cut, or too many for the rate.
    pub dropped: u64,
}

/// What went through a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// From the clients to the server.
    pub up: Traffic,
    /// From the server to the clients.
    pub down: Traffic,
}

/// A relay in front of one server, for any number of clients. It ends with its owner.
pub struct Relay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Starts a relay in front of a server.
    pub fn start(server: SocketAddr, path: Path) -> Self {
        let loopback = match server.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let exit_ip = match server.ip() {
            ip if ip.is_loopback() => loopback,
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let shared = Arc::new(Shared {
            server,
            front: socket(loopback).unwrap(),
            up: Line::new(path, 1),
            down: Line::new(path, 2),
            flows: Mutex::new(Flows { by_client: HashMap::new(), used: HashSet::new(), exit_ip }),
            ended: AtomicBool::new(false),
        });
        let run = |work: fn(&Arc<Shared>)| {
            let shared = shared.clone();
            std::thread::spawn(move || work(&shared))
        };
        let threads = vec![
            run(Shared::receive_from_clients),
            run(|shared| shared.up.run(&shared.ended, |packet, flow| shared.send_up(packet, flow))),
            run(|shared| shared.down.run(&shared.ended, |packet, flow| shared.send_down(packet, flow))),
        ];
        Self { shared, threads }
    }

    /// Where clients find the server.
    pub fn address(&self) -> SocketAddr {
        self.shared.front.local_addr().unwrap()
    }

    /// Where the server sees the clients come from now, in no order.
    pub fn exits(&self) -> Vec<SocketAddr> {
        let flows = self.shared.flows.lock().unwrap();
        let sockets = flows.by_client.values().filter_map(|flow| flow.socket());
        sockets.map(|socket| socket.local_addr().unwrap()).collect()
    }

    /// Another line from now on, both ways. What is under way stays under way, and in order.
    pub fn set(&self, path: Path) {
        self.set_each(path, path);
    }

    /// Another line from now on, unlike each way.
    pub fn set_each(&self, up: Path, down: Path) {
        self.shared.up.set(up);
        self.shared.down.set(down);
    }

    /// Nothing passes any more, nor arrives what was under way. Nobody is told.
    pub fn cut(&self) {
        self.shared.up.cut();
        self.shared.down.cut();
    }

    /// Packets pass again.
    pub fn mend(&self) {
        self.shared.up.state().is_cut = false;
        self.shared.down.state().is_cut = false;
    }

    /// As when a NAT binds anew: each client's packets leave from a port that was never used before. The old
    /// ports are closed when this returns.
    pub fn readdress(&self) {
        let mut flows = self.shared.flows.lock().unwrap();
        let all: Vec<_> = flows.by_client.values().cloned().collect();
        for flow in all {
            let new = self.shared.open_exit(&mut flows, &flow);
            let old = flow.exit.lock().unwrap().replace(new);
            old.into_iter().for_each(Exit::close);
        }
    }

    /// As when clients change networks: new ports on another address, 127.0.0.2 and up. A server on ::1 or
    /// not on loopback sees new ports only.
    pub fn roam(&self) {
        {
            let mut flows = self.shared.flows.lock().unwrap();
            if let IpAddr::V4(ip) = flows.exit_ip
                && ip.is_loopback()
            {
                flows.exit_ip = IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() + 1));
            }
        }
        self.readdress();
    }

    /// As when a NAT starts anew: what is under way is lost, and nothing reaches a client before it speaks
    /// again, which it then does from a new port.
    pub fn forget(&self) {
        let mut flows = self.shared.flows.lock().unwrap();
        self.shared.up.state().lose_waiting();
        self.shared.down.state().lose_waiting();
        flows.close();
    }

    /// What went through so far.
    pub fn counts(&self) -> Counts {
        Counts { up: self.shared.up.state().traffic, down: self.shared.down.state().traffic }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.up.wake.notify_all();
        self.shared.down.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Ok(mut flows) = self.shared.flows.lock() {
            flows.close();
        }
    }
}

/// A socket with room for a burst. Only root may have all of the room; the others take what they get.
fn socket(ip: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0))?;
    if sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
    }
    let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
    socket.set_read_timeout(Some(LOOK_UP))?;
    Ok(socket)
}

struct Shared {
    server: SocketAddr,
    front: UdpSocket,
    up: Line,
    down: Line,
    flows: Mutex<Flows>,
    ended: AtomicBool,
}

impl Shared {
    fn receive_from_clients(self: &Arc<Self>) {
        let mut buffer = vec![0; 1 << 16];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((length, client)) = self.front.recv_from(&mut buffer) else { continue };
            let flow = self.flow(client);
            self.up.carry(&buffer[..length], &flow, |packet, flow| self.send_up(packet, flow));
        }
    }

    fn flow(self: &Arc<Self>, client: SocketAddr) -> Arc<Flow> {
        let mut flows = self.flows.lock().unwrap();
        if let Some(flow) = flows.by_client.get(&client) {
            return flow.clone();
        }
        let flow = Arc::new(Flow { client, exit: Mutex::new(None) });
        let exit = self.open_exit(&mut flows, &flow);
        flow.exit.lock().unwrap().replace(exit);
        flows.by_client.insert(client, flow.clone());
        flow
    }

    fn open_exit(self: &Arc<Self>, flows: &mut Flows, flow: &Arc<Flow>) -> Exit {
        let socket = Arc::new(flows.fresh_socket());
        socket.connect(self.server).unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        let (shared, flow, mine, ended) = (self.clone(), flow.clone(), socket.clone(), closed.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !ended.load(Ordering::SeqCst) {
                let Ok(length) = mine.recv(&mut buffer) else { continue };
                if !ended.load(Ordering::SeqCst) {
                    shared
                        .down
                        .carry(&buffer[..length], &flow, |packet, flow| shared.send_down(packet, flow));
                }
            }
        });
        Exit { socket, closed, thread }
    }

    fn send_up(&self, packet: &[u8], flow: &Flow) {
        let Some(socket) = flow.socket() else { return };
        // An error is an older packet's: the server's port was closed.
        if socket.send(packet).is_err() {
            let _ = socket.send(packet);
        }
    }

    fn send_down(&self, packet: &[u8], flow: &Flow) {
        let _ = self.front.send_to(packet, flow.client);
    }
}

struct Flows {
    by_client: HashMap<SocketAddr, Arc<Flow>>,
    /// Ports that the server has seen.
    used: HashSet<u16>,
    exit_ip: IpAddr,
}

impl Flows {
    fn fresh_socket(&mut self) -> UdpSocket {
        // Those of used ports are kept open until there is another.
        let mut tried = Vec::new();
        loop {
            let socket = socket(self.exit_ip).unwrap();
            if self.used.insert(socket.local_addr().unwrap().port()) {
                return socket;
            }
            tried.push(socket);
        }
    }

    fn close(&mut self) {
        for (_, flow) in self.by_client.drain() {
            let exit = flow.exit.lock().unwrap().take();
            exit.into_iter().for_each(Exit::close);
        }
    }
}

/// One client's packets.
struct Flow {
    client: SocketAddr,
    exit: Mutex<Option<Exit>>,
}

impl Flow {
    fn socket(&self) -> Option<Arc<UdpSocket>> {
        self.exit.lock().unwrap().as_ref().map(|exit| exit.socket.clone())
    }
}

/// Where a client's packets leave to the server and the answers arrive.
struct Exit {
    socket: Arc<UdpSocket>,
    closed: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Exit {
    fn close(self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        let _ = self.thread.join();
    }
}

/// One direction.
struct Line {
    state: Mutex<State>,
    wake: Condvar,
    /// So that the directions do not lose the same packets.
    salt: u64,
}

struct State {
    path: Path,
    is_cut: bool,
    /// Packets since the path was set.
    seen: u64,
    /// Packets that ever waited.
    order: u64,
    /// When the line has sent what it has taken, at its rate.
    free_at: Instant,
    /// When the newest packet is due.
    due: Instant,
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Due packets are being sent by the line's thread.
    is_sending: bool,
    traffic: Traffic,
}

impl State {
    fn lose_waiting(&mut self) {
        self.traffic.dropped += self.waiting.len() as u64;
        self.waiting.clear();
    }

    /// When a packet arrives at the other end, if it does.
    fn fate(&mut self, length: usize, salt: u64, now: Instant) -> Option<Instant> {
        let path = self.path;
        let mut dice = Dice::new(path.seed, salt, self.seen);
        self.seen += 1;
        if self.is_cut || dice.roll() < path.loss {
            return None;
        }
        let mut sent = now;
        if let Some(rate) = path.rate_limit {
            let start = self.free_at.max(now);
            if start - now > QUEUE {
                return None;
            }
            self.free_at = start + Duration::from_secs_f64(length as f64 / rate.max(1) as f64);
            sent = self.free_at;
        }
        if path.jitter.is_zero() {
            // Never before an older one, whatever the path was then.
            self.due = self.due.max(sent + path.delay);
            Some(self.due)
        } else {
            Some(sent + path.delay + path.jitter.mul_f64(dice.roll()))
        }
    }

    fn passed(&mut self, length: usize) {
        self.traffic.packets += 1;
        self.traffic.bytes += length as u64;
    }
}

impl Line {
    fn new(path: Path, salt: u64) -> Self {
        let now = Instant::now();
        let state = State {
            path,
            is_cut: false,
            seen: 0,
            order: 0,
            free_at: now,
            due: now,
            waiting: BinaryHeap::new(),
            is_sending: false,
            traffic: Traffic::default(),
        };
        Self { state: Mutex::new(state), wake: Condvar::new(), salt }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn set(&self, path: Path) {
        let mut state = self.state();
        state.path = path;
        state.seen = 0;
        state.free_at = Instant::now();
    }

    fn cut(&self) {
        let mut state = self.state();
        state.is_cut = true;
        state.lose_waiting();
    }

    /// Takes a packet: sends it at once where nothing is in its way, else leaves it to the line's thread.
    fn carry(&self, packet: &[u8], flow: &Arc<Flow>, send: impl Fn(&[u8], &Flow)) {
        let now = Instant::now();
        let mut state = self.state();
        let Some(due) = state.fate(packet.len(), self.salt, now) else {
            state.traffic.dropped += 1;
            return;
        };
        if due <= now && state.waiting.is_empty() && !state.is_sending {
            state.passed(packet.len());
            drop(state);
            send(packet, flow);
            return;
        }
        state.order += 1;
        let is_next = state.waiting.peek().is_none_or(|Reverse(next)| due < next.due);
        let order = state.order;
        state.waiting.push(Reverse(Waiting { due, order, packet: packet.to_vec(), flow: flow.clone() }));
        drop(state);
        if is_next {
            self.wake.notify_one();
        }
    }

    /// Sends waiting packets when they are due, until the relay ends.
    fn run(&self, ended: &AtomicBool, send: impl Fn(&[u8], &Flow)) {
        let mut batch = Vec::new();
        let mut state = self.state();
        while !ended.load(Ordering::SeqCst) {
            let now = Instant::now();
            let next = state.waiting.peek().map(|Reverse(next)| next.due);
            match next {
                Some(due) if due <= now => {
                    while state.waiting.peek().is_some_and(|Reverse(next)| next.due <= now) {
                        let Some(Reverse(waiting)) = state.waiting.pop() else { break };
                        state.passed(waiting.packet.len());
                        batch.push(waiting);
                    }
                    state.is_sending = true;
                    drop(state);
                    batch.drain(..).for_each(|waiting| send(&waiting.packet, &waiting.flow));
                    state = self.state();
                    state.is_sending = false;
                }
                next => {
                    let pause = next.map_or(LOOK_UP, |due| (due - now).min(LOOK_UP));
                    state = self.wake.wait_timeout(state, pause).unwrap().0;
                }
            }
        }
    }
}

/// A packet under way.
struct Waiting {
    due: Instant,
    order: u64,
    packet: Vec<u8>,
    flow: Arc<Flow>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

/// Chance that is the same for the same packet of the same seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, salt: u64, packet: u64) -> Self {
        Self(seed ^ salt.rotate_left(60) ^ packet.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// From 0 up to 1, by SplitMix64.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::AtomicU64;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
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
            let times = (0..5).map(|_| {
                let start = Instant::now();
                ask(&client, "there?", SOON).unwrap();
                start.elapsed()
            });
            times.min().unwrap()
        };
        let slow = round();
        assert!(slow >= Duration::from_millis(60) && slow < Duration::from_millis(90), "{slow:?}");
        relay.set(Path::default());
        let fast = round();
        assert!(fast < Duration::from_millis(20), "{fast:?}");
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
        (0..2_000).for_each(|i| assert!(client.send(i.to_string().as_bytes()).is_ok()));
        let heard = std::iter::from_fn(|| hear(&client, NEVER)).map(|(_, said)| said).collect();
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
        let relay = Relay::start(echo.address, Path::delayed(Duration::from_millis(50)));
        let client = client(&relay);
        client.send(b"under way").unwrap();
        std::thread::sleep(Duration::from_millis(10));
        relay.cut();
        assert_eq!(ask(&client, "cut", NEVER), None);
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
        // Far more than passes in the time.
        while start.elapsed() < Duration::from_millis(500) {
            client.send(&[0; 1_000]).unwrap();
            std::thread::sleep(Duration::from_micros(20));
        }
        let (counts, taken) = (relay.counts().up, start.elapsed().as_secs_f64());
        let measured = counts.bytes as f64 / taken;
        assert!((1e6..4.8e6).contains(&measured), "{measured} {counts:?}");
        assert!(counts.dropped > 0, "{counts:?}");
    }

    #[test]
    fn a_bulk_of_packets_comes_through_whole_and_in_order() {
        assert!(throughput(Path::default(), 30_000_000) > 0.0);
        assert!(throughput(Path::delayed(Duration::from_millis(5)), 10_000_000) > 0.0);
    }

    #[test]
    #[ignore = "needs two idle cores"]
    fn a_line_without_delay_carries_100_megabytes_a_second() {
        let at_once = throughput(Path::default(), 500_000_000);
        assert!(at_once >= 100e6, "{at_once}");
        writeln!(io::stderr(), "{:.0} MB/s", at_once / 1e6).unwrap();
    }
}
