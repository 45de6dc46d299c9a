//! Every QUIC parameter, in one place.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;

/// Silence after which a connection is given up, by the side that has the agent: two lost keep-alives.
const IDLE: Duration = Duration::from_secs(60);
/// The same by the server: the shorter of both is in force, and an agent in a quiet network may ask for more.
const IDLE_SERVER: Duration = Duration::from_secs(300);
/// Well under the 30 s after which home routers forget a UDP flow (RFC 9000, section 10.1.2).
pub const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// Control, and room for what later versions add.
const STREAMS: u32 = 8;
/// 100 ms at 1 Gbit/s.
const STREAM_WINDOW: u32 = 16 << 20;
const WINDOW: u32 = 32 << 20;
/// What a sender holds until it is acknowledged: 100 ms at 1 Gbit/s and no more, for it is memory of the agent.
const SEND_WINDOW: u64 = 12 << 20;
/// Larger datagrams made throughput collapse in measurement (loss of one costs too much).
const MTU_MAX: u16 = 6_500;

/// Which side of a session an endpoint is: only the agent keeps connections alive, one packet pair does for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// The agent's side, with the time between its keep-alives.
    Agent(Duration),
    /// The server's.
    Server,
}

/// For every connection of an endpoint.
pub(crate) fn transport(keeper: Keeper) -> Arc<TransportConfig> {
    let (idle, keep_alive) = match keeper {
        Keeper::Agent(every) => (IDLE.max(every * 5 / 2), Some(every)),
        Keeper::Server => (IDLE_SERVER, None),
    };
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle.as_millis() as u32))))
        .keep_alive_interval(keep_alive)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu));
    Arc::new(config)
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
