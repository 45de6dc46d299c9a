//! A connection's way through the network: where it goes, what has gone over it, and how it moves.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use quinn::{Connection, Endpoint};

use crate::error::NetError;

/// Datagrams of a connection, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// By this side.
    pub sent: u64,
    /// From the other.
    pub received: u64,
}

/// The handle by which a connection follows this machine from one network to another.
#[derive(Clone)]
pub struct Path {
    connection: Connection,
    endpoint: Option<Box<Endpoint>>,
}

impl Path {
    pub(super) fn new(connection: Connection, endpoint: Option<Box<Endpoint>>) -> Self {
        Self { connection, endpoint }
    }

    /// Goes on from a new socket, whose first packet leaves at once. Only the side that has dialled can move (RFC 9000,
    /// section 9); on the other this does nothing.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub fn migrate(&self) -> Result<(), NetError> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        let lost = |error: std::io::Error| NetError::Lost(error.to_string());
        let socket = crate::endpoint::socket_towards(self.connection.remote_address()).map_err(lost)?;
        endpoint.rebind(socket).map_err(lost)
    }

    /// True when something was heard from the peer within some time from now.
    pub async fn answers_within(&self, patience: Duration) -> bool {
        let heard = || self.traffic().received;
        let before = heard();
        let wait = async {
            while heard() == before && self.connection.close_reason().is_none() {
                tokio::time::sleep(patience / 60).await;
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok() && self.connection.close_reason().is_none()
    }

    /// What has gone over the connection so far.
    pub fn traffic(&self) -> Traffic {
        let stats = self.connection.stats();
        Traffic { sent: stats.udp_tx.datagrams, received: stats.udp_rx.datagrams }
    }

    /// The address of this machine from which packets leave for the peer, by the routes of now.
    pub fn local(&self) -> Option<IpAddr> {
        let remote = self.connection.remote_address();
        let probe = crate::endpoint::socket_towards(remote).ok()?;
        // Sends nothing: it only asks the kernel for a route.
        probe.connect(remote).ok()?;
        Some(probe.local_addr().ok()?.ip().to_canonical())
    }

    /// From where the peer's packets come now.
    pub fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// True until the connection is closed.
    pub fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Closes the connection without waiting for anybody: the path is gone.
    pub fn abandon(&self) {
        self.connection.close(0u32.into(), b"the path is gone");
    }
}
