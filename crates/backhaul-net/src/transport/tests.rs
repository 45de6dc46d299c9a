//! What a link that stands says while nothing happens: quinn's state machines with our parameters, in virtual time.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use quinn::ServerConfig;
use quinn_proto::{ConnectionHandle, DatagramEvent, Endpoint, Transmit};

use super::*;
use crate::authority::Authority;
use crate::endpoint::{ALPN_PUSH, client_config, client_tls, server_configs};
use crate::identity::{Role, TLS_NAME};

/// From one end to the other.
const LATENCY: Duration = Duration::from_micros(50);
/// A machine with something else to do, and timers that are rounded up to milliseconds.
const LATE: Duration = Duration::from_millis(10);

/// One end of a connection.
struct End {
    address: SocketAddr,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, quinn_proto::Connection)>,
    inbox: VecDeque<(Instant, BytesMut)>,
    /// How much later than it should it looks at its timers and at what has arrived.
    late: Duration,
}

impl End {
    fn new(address: &str, server: Option<ServerConfig>, late: Duration) -> Self {
        let endpoint = Endpoint::new(Arc::new(super::endpoint()), server.map(Arc::new), true, None);
        Self { address: address.parse().unwrap(), endpoint, connection: None, inbox: VecDeque::new(), late }
    }

    /// When there is something to do.
    fn next(&mut self) -> Option<Instant> {
        let timer = self.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout());
        let arrival = self.inbox.front().map(|(at, _)| *at);
        timer.into_iter().chain(arrival).min().map(|at| at + self.late)
    }

    /// Does what is to be done now; returns what is sent.
    fn drive(&mut self, now: Instant, peer: SocketAddr) -> Vec<BytesMut> {
        let (mut sent, mut buffer) = (Vec::new(), Vec::new());
        while self.inbox.front().is_some_and(|(at, _)| *at + self.late <= now) {
            let (_, datagram) = self.inbox.pop_front().unwrap();
            match self.endpoint.handle(now, peer, None, None, datagram, &mut buffer) {
                Some(DatagramEvent::NewConnection(incoming)) => {
                    self.connection = self.endpoint.accept(incoming, now, &mut buffer, None).ok();
                }
                Some(DatagramEvent::ConnectionEvent(_, event)) => {
                    self.connection.as_mut().unwrap().1.handle_event(event);
                }
                Some(DatagramEvent::Response(_)) | None => {}
            }
        }
        let Some((handle, connection)) = &mut self.connection else { return sent };
        if connection.poll_timeout().is_some_and(|at| at + self.late <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        buffer.clear();
        while let Some(Transmit { size, .. }) = connection.poll_transmit(now, 1, &mut buffer) {
            sent.push(BytesMut::from(&buffer[..size]));
            buffer.clear();
        }
        sent
    }

    fn traffic(&self) -> (u64, u64) {
        let stats = self.connection.as_ref().unwrap().1.stats();
        (stats.udp_tx.datagrams, stats.udp_rx.datagrams)
    }
}

/// The agent's end and the server's.
struct Pair {
    ends: [End; 2],
    now: Instant,
}

impl Pair {
    fn new(wanted: Use, late: [Duration; 2]) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let authority = Authority::create(time).unwrap();
        let issue = |role| authority.issue_own(role, "desk", time).unwrap();
        let (work, standing) = server_configs(&issue(Role::Server), &[ALPN_PUSH], Keeper::Server).unwrap();
        let config = if wanted == Use::Work { work } else { standing };
        let now = Instant::now();
        let mut agent = End::new("127.0.0.1:40000", None, late[0]);
        let server = End::new("127.0.0.1:8440", Some(config), late[1]);
        let manner = Manner::ToServer(wanted);
        let dial =
            client_config(client_tls(&issue(Role::Agent), manner).unwrap(), ALPN_PUSH, manner).unwrap();
        agent.connection = Some(agent.endpoint.connect(now, dial, server.address, TLS_NAME).unwrap());
        Self { ends: [agent, server], now }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let addresses = [self.ends[0].address, self.ends[1].address];
        while self.now <= until {
            for (n, peer) in [(0, 1), (1, 0)] {
                let sent = self.ends[n].drive(self.now, addresses[peer]);
                let arrival = self.now + LATENCY;
                self.ends[peer].inbox.extend(sent.into_iter().map(|datagram| (arrival, datagram)));
            }
            let next = self.ends.iter_mut().filter_map(End::next).min().unwrap();
            self.now = next.max(self.now);
        }
        self.now = until;
    }
}

#[test]
fn an_idle_link_is_one_pair_of_packets_in_25_seconds_though_both_ends_are_late() {
    let none = Duration::ZERO;
    for late in [[none, none], [none, LATE], [LATE, none], [LATE, LATE]] {
        let mut pair = Pair::new(Use::Standing(KEEP_ALIVE), late);
        pair.run(KEEP_ALIVE * 2);
        let before = pair.ends[0].traffic();
        pair.run(KEEP_ALIVE * 40);
        let after = pair.ends[0].traffic();
        let (sent, received) = (after.0 - before.0, after.1 - before.1);
        assert!((38..=40).contains(&sent) && (38..=40).contains(&received), "{late:?}: {sent}, {received}");
    }
}

/// A hello with a key of ML-KEM-768 (1,184 bytes) does not fit into one datagram of 1,200.
#[test]
fn data_has_keys_that_outlast_a_quantum_computer_and_an_idle_link_small_ones() {
    for (wanted, datagrams) in [(Use::Work, 2), (Use::Standing(KEEP_ALIVE), 1)] {
        let mut pair = Pair::new(wanted, [Duration::ZERO; 2]);
        let server = pair.ends[1].address;
        assert_eq!(pair.ends[0].drive(pair.now, server).len(), datagrams, "{wanted:?}");
    }
}
