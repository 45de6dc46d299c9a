//! Every QUIC parameter, in one place.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    TransportConfig, VarInt,
};
use quinn_proto::{
    ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator, RandomConnectionIdGenerator,
};

/// Silence after which a connection is given up, by the side that has the agent: two lost keep-alives.
const IDLE: Duration = Duration::from_secs(60);
/// The same by the server: the shorter of both is in force, and an agent in a quiet network may ask for more.
const IDLE_SERVER: Duration = Duration::from_secs(300);
/// Well under the 30 s after which home routers forget a UDP flow (RFC 9000, section 10.1.2).
pub const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// Streams of each kind that a peer may open: control, and objects. A stream that nobody reads would hold a window of
/// memory.
const STREAMS: u32 = 1;
/// 100 ms at 1 Gbit/s.
const STREAM_WINDOW: u32 = 16 << 20;
const WINDOW: u32 = 32 << 20;
/// The largest frame, and one more: for links that stand, and for whoever is not let in yet.
const FRAMES_WINDOW: u32 = 2 << 20;
/// What a sender holds until it is acknowledged: 100 ms at 1 Gbit/s and no more, for it is memory of the agent.
const SEND_WINDOW: u64 = 12 << 20;
/// What may be sent before the first acknowledgement: 32 packets of the smallest path.
const INITIAL_WINDOW: u64 = 32 * 1_200;
/// Larger datagrams made throughput collapse in measurement (loss of one costs too much).
const MTU_MAX: u16 = 6_500;

/// What a connection to a server is dialled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// To move data.
    Work,
    /// To stand, silent for nearly all of its life, with so long between two of its packets.
    Standing(Duration),
}

/// Which side of a session an endpoint is: only the agent keeps connections alive, one packet pair does for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The agent's side, with the time between its keep-alives.
    Agent(Duration),
    /// The server's.
    Server,
}

impl Keeper {
    fn timers(self, config: &mut TransportConfig) {
        let (idle, keep_alive) = match self {
            Self::Agent(every) => (IDLE.max(every * 5 / 2), Some(every)),
            Self::Server => (IDLE_SERVER, None),
        };
        config
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle.as_millis() as u32))))
            .keep_alive_interval(keep_alive);
    }
}

/// For connections that move data.
pub(crate) fn transport(keeper: Keeper) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    keeper.timers(&mut config);
    let (objects, window) = match keeper {
        Keeper::Agent(_) => (STREAMS, WINDOW),
        // Until `admit`: an agent without a grant has no objects to send.
        Keeper::Server => (0, FRAMES_WINDOW),
    };
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(objects))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(window))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(congestion());
    Arc::new(config)
}

/// Cubic from a larger window on: each doubling of it is a round trip, and pacing spreads it over one.
fn congestion() -> Arc<CubicConfig> {
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW);
    Arc::new(cubic)
}

/// Gives an agent that has a grant the room to use it.
pub(crate) fn admit(connection: &Connection, window: u32) {
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(STREAMS));
    set_window(connection, window);
}

pub(crate) fn set_window(connection: &Connection, window: u32) {
    connection.set_receive_window(VarInt::from_u32(window.min(WINDOW)));
}

/// For standing links, of which a server holds thousands: a word now and then in one small datagram. Room to send
/// many datagrams at once would cost 12 KiB a link, and the search for the path's largest datagram a dozen packets.
///
/// Each packet is acknowledged at once. Otherwise an acknowledgement waits 25 ms for company, which never comes, and
/// the sender, which asks again 1 ms after that, sends two packets more wherever either end has something else to do.
pub(crate) fn standing(keeper: Keeper) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    keeper.timers(&mut config);
    let mut at_once = AckFrequencyConfig::default();
    at_once.ack_eliciting_threshold(VarInt::from_u32(0));
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(FRAMES_WINDOW))
        .receive_window(VarInt::from_u32(FRAMES_WINDOW))
        .send_window(u64::from(FRAMES_WINDOW))
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(false)
        .ack_frequency_config(Some(at_once))
        .mtu_discovery_config(None);
    Arc::new(config)
}

/// Length of the id by which a standing link's first packet names the server (RFC 9000, section 7.2: the dialler makes
/// it up, 8 to 20 bytes). Everything else about a dial is sealed when the server must choose how much memory to give
/// it. It is a hint and no right: whoever lies gets a slow connection, or wastes a little memory.
const STANDING_ID: usize = 12;

/// Whom a connection is dialled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    ToServer(Use),
    ToAgent,
}

impl Manner {
    pub(crate) fn apply(self, config: &mut ClientConfig) {
        match self {
            Self::ToServer(Use::Work) => config.transport_config(transport(Keeper::Agent(KEEP_ALIVE))),
            Self::ToServer(Use::Standing(every)) => {
                config.transport_config(standing(Keeper::Agent(every))).initial_dst_cid_provider(Arc::new(
                    || RandomConnectionIdGenerator::new(STANDING_ID).generate_cid(),
                ))
            }
            Self::ToAgent => config.transport_config(transport(Keeper::Server)),
        };
    }
}

/// True for the first id of a dial that is marked so.
pub(crate) fn is_standing(first: &ConnectionId) -> bool {
    first.len() == STANDING_ID
}

/// For both kinds of endpoint.
pub(crate) fn endpoint() -> EndpointConfig {
    sized(EndpointConfig::default())
}

/// For the server's: with a key that survives a restart, a client that comes back to a server that has forgotten its
/// connection is told so at once, and need not wait for its own timer.
pub(crate) fn endpoint_with_reset_key(key: &[u8; 32]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key)));
    // Connection ids that are recognised as one's own, too: others are not answered at all.
    let mut head = [0; 8];
    head.copy_from_slice(&key[..8]);
    let ids = u64::from_le_bytes(head);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    sized(config)
}

fn sized(mut config: EndpointConfig) -> EndpointConfig {
    // Refused only below 1,200.
    let _ = config.max_udp_payload_size(MTU_MAX);
    config
}

#[cfg(test)]
mod tests;
