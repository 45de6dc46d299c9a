//! Every QUIC parameter, in one place.

use std::sync::Arc;
use std::time::Duration;

use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// Silence after which a connection is given up.
const IDLE: Duration = Duration::from_secs(60);
/// Well under the 30 s after which home routers forget a UDP flow.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// Control, and room for what later versions add.
const STREAMS: u32 = 8;
/// 100 ms at 1 Gbit/s.
const STREAM_WINDOW: u32 = 16 << 20;
const WINDOW: u32 = 32 << 20;
/// What a sender holds until it is acknowledged: 100 ms at 1 Gbit/s and no more, for it is memory of the agent.
const SEND_WINDOW: u64 = 12 << 20;
/// Larger datagrams made throughput collapse in measurement (loss of one costs too much).
const MTU_MAX: u16 = 6_500;

/// For both sides of every connection.
pub(crate) fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE.as_millis() as u32))))
        .keep_alive_interval(Some(KEEP_ALIVE))
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
    let mut config = EndpointConfig::default();
    // Refused only below 1,200.
    let _ = config.max_udp_payload_size(MTU_MAX);
    config
}
