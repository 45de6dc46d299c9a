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

mod line;

use line::Line;

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
    /// Bytes of the largest packet that passes, without UDP and IP headers.
    pub largest: Option<usize>,
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
        self.shared.up.mend();
        self.shared.down.mend();
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
        self.shared.up.lose_waiting();
        self.shared.down.lose_waiting();
        flows.close();
    }

    /// What went through so far.
    pub fn counts(&self) -> Counts {
        Counts { up: self.shared.up.traffic(), down: self.shared.down.traffic() }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.up.wake();
        self.shared.down.wake();
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

#[cfg(test)]
mod tests;
