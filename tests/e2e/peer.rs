//! A client that speaks the real protocol by hand, with an agent's certificate.

use std::time::Duration;

use backhaul_agent::home::AgentHome;
use backhaul_net::endpoint::dial_server;
use backhaul_net::link::{FrameReader, FrameWriter, Streams};
use backhaul_net::transport::Use;
use backhaul_net::{Link, NetError};
use backhaul_proto::PROTOCOL;
use backhaul_proto::wire::{self, frame::Body};
use backhaul_tests::Home;
use tokio::time::timeout;

/// Longer than anything that is answered takes.
pub const SOON: Duration = Duration::from_secs(60);

/// A peer with an agent's certificate and manners of its own.
pub struct Peer {
    pub writer: FrameWriter,
    pub reader: FrameReader,
    pub streams: Streams,
}

impl Peer {
    pub fn over(link: Link) -> Self {
        let (writer, reader, streams) = link.split();
        Self { writer, reader, streams }
    }

    pub async fn try_dial(home: &Home) -> Result<Self, NetError> {
        let agent = AgentHome::at(home.path());
        let servers = agent.config().unwrap().servers;
        let link = dial_server(&servers[0], &agent.agent().unwrap(), Use::Work).await?;
        Ok(Self::over(link))
    }

    pub async fn dial(home: &Home) -> Self {
        Self::try_dial(home).await.unwrap()
    }

    pub async fn send(&mut self, body: Body) -> Result<(), NetError> {
        self.writer.send(&wire::Frame { body: Some(body) }).await
    }

    /// Says hello; what is answered. Whoever is turned away at the door may not have been heard, and is answered still.
    pub async fn hello(&mut self, intent: wire::Intent, more: wire::Hello) -> Option<Body> {
        let hello = wire::Hello { protocol_min: PROTOCOL, protocol_max: PROTOCOL, ..more };
        let _ = self.send(Body::Hello(wire::Hello { intent: intent.into(), ..hello })).await;
        self.hear().await
    }

    /// The next frame; none when the connection is over.
    pub async fn hear(&mut self) -> Option<Body> {
        let heard = timeout(SOON, self.reader.next()).await.unwrap();
        heard.ok().flatten().and_then(|frame| frame.body)
    }
}

pub async fn hello(home: &Home, intent: wire::Intent, more: wire::Hello) -> (Peer, Option<Body>) {
    let mut peer = Peer::dial(home).await;
    let answer = peer.hello(intent, more).await;
    (peer, answer)
}

pub fn refused(answer: Option<Body>) -> wire::End {
    match answer {
        Some(Body::End(end)) => end,
        other => panic!("{other:?}"),
    }
}

pub fn welcomed(answer: Option<Body>) -> wire::Welcome {
    match answer {
        Some(Body::Welcome(welcome)) => welcome,
        other => panic!("{other:?}"),
    }
}

pub fn queued(answer: Option<Body>) -> wire::Queued {
    match answer {
        Some(Body::Queued(queued)) => queued,
        other => panic!("{other:?}"),
    }
}
