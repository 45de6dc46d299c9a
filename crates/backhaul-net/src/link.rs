//! An open connection: one control stream of frames, one object stream in each direction.

mod path;

pub use path::{Path, Traffic};

use backhaul_object::Compressed;
use backhaul_proto::data::{self, Announced, PREFIX_LEN};
use backhaul_proto::wire::Frame;

use bytes::{Bytes, BytesMut};
use prost::Message;
use quinn::{
    Connection, ConnectionError, Endpoint, ReadError, ReadExactError, RecvStream, SendStream, WriteError,
};

use crate::error::NetError;
use crate::identity::PeerIdentity;

/// Sent by whoever dialled, so that the other side sees the stream before the agent has spoken.
const PREAMBLE: &[u8; 4] = b"BHC1";
/// Close code of a connection that is not to be taken up again.
const DISMISSED: u32 = 2;
/// Close code of whoever leaves and does not come back by itself.
const LEFT: u32 = 3;
/// Code of an object stream that is given up: what was not sent yet will not be.
const ABANDONED: u32 = 1;
/// Control goes before objects wherever both wait to be sent.
const CONTROL_FIRST: i32 = 1;
/// Largest control frame.
const FRAME_MAX: usize = 1 << 20;
/// Before each frame: its length.
const LEN: usize = 4;

/// A connection with a verified peer.
pub struct Link {
    connection: Connection,
    /// Of this connection alone, when this side has dialled.
    endpoint: Option<Box<Endpoint>>,
    send: SendStream,
    receive: RecvStream,
    peer: PeerIdentity,
}

/// The handle by which a connection is closed from elsewhere.
#[derive(Clone)]
pub struct Hangup(Connection);

impl Hangup {
    /// Closes the connection, telling the peer why.
    pub fn close(&self, reason: &str) {
        self.0.close(0u32.into(), reason.as_bytes());
    }

    /// Closes the connection for good: the peer is not to come back by itself.
    pub fn dismiss(&self, reason: &str) {
        self.0.close(DISMISSED.into(), reason.as_bytes());
    }

    /// Closes the connection for good, from the side that would come back. In full flow nothing leaves any more, not
    /// even this, while the path is full: whoever has objects under way gives them up first.
    pub fn leave(&self, reason: &str) {
        self.0.close(LEFT.into(), reason.as_bytes());
    }
}

/// The reason under a stream's error: what the peer said when it closed, if it did.
fn lost(error: impl Into<Broken>) -> NetError {
    let text = |closed: &quinn::ApplicationClose| String::from_utf8_lossy(&closed.reason).into_owned();
    NetError::Lost(match error.into().0 {
        Some(ConnectionError::ApplicationClosed(closed)) if closed.error_code == DISMISSED.into() => {
            return NetError::Dismissed(text(&closed));
        }
        Some(ConnectionError::ApplicationClosed(closed)) if closed.error_code == LEFT.into() => {
            return NetError::Left(text(&closed));
        }
        Some(ConnectionError::ApplicationClosed(closed)) if !closed.reason.is_empty() => {
            format!("closed by the other side: {}", text(&closed))
        }
        Some(ConnectionError::TimedOut) => "nothing was heard for a minute".to_owned(),
        Some(error) => error.to_string(),
        None => "the stream was cut short".to_owned(),
    })
}

/// The connection's error in a stream's error.
struct Broken(Option<ConnectionError>);

impl From<ConnectionError> for Broken {
    fn from(error: ConnectionError) -> Self {
        Self(Some(error))
    }
}

impl From<WriteError> for Broken {
    fn from(error: WriteError) -> Self {
        Self(if let WriteError::ConnectionLost(error) = error { Some(error) } else { None })
    }
}

impl From<ReadError> for Broken {
    fn from(error: ReadError) -> Self {
        Self(if let ReadError::ConnectionLost(error) = error { Some(error) } else { None })
    }
}

impl From<ReadExactError> for Broken {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::ReadError(error) => error.into(),
            ReadExactError::FinishedEarly(_) => Self(None),
        }
    }
}

/// Why an object is not whole: the connection's doing, or the sender's.
fn cut_short(error: ReadExactError) -> NetError {
    match error {
        ReadExactError::FinishedEarly(_) => {
            NetError::Malformed("the object stream ends in the middle of an object".to_owned())
        }
        ReadExactError::ReadError(ReadError::Reset(_)) => NetError::Abandoned,
        error => lost(error),
    }
}

impl Link {
    pub(crate) async fn dialled(
        connection: Connection,
        endpoint: Endpoint,
        peer: PeerIdentity,
    ) -> Result<Self, NetError> {
        let (mut send, receive) = connection.open_bi().await.map_err(lost)?;
        // A stream that was just opened has a priority to set.
        let _ = send.set_priority(CONTROL_FIRST);
        send.write_all(PREAMBLE).await.map_err(lost)?;
        Ok(Self { connection, endpoint: Some(Box::new(endpoint)), send, receive, peer })
    }

    pub(crate) async fn accept(connection: Connection, peer: PeerIdentity) -> Result<Self, NetError> {
        let (send, mut receive) = connection.accept_bi().await.map_err(lost)?;
        let _ = send.set_priority(CONTROL_FIRST);
        let mut preamble = [0; PREAMBLE.len()];
        receive.read_exact(&mut preamble).await.map_err(lost)?;
        if preamble != *PREAMBLE {
            return Err(NetError::Malformed("not a control stream".to_owned()));
        }
        Ok(Self { connection, endpoint: None, send, receive, peer })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// Closes the connection, telling the peer why.
    pub fn close(&self, reason: &str) {
        self.hangup().close(reason);
    }

    /// A handle to move it to another network by.
    pub fn path(&self) -> Path {
        Path::new(self.connection.clone(), self.endpoint.clone())
    }

    /// A handle to close it by.
    pub fn hangup(&self) -> Hangup {
        Hangup(self.connection.clone())
    }

    /// Takes the connection apart for the tasks that drive it.
    pub fn split(self) -> (FrameWriter, FrameReader, Streams) {
        (FrameWriter(self.send), FrameReader::new(self.receive), Streams(self.connection))
    }
}

/// Sends control frames.
pub struct FrameWriter(SendStream);

impl FrameWriter {
    /// Sends one frame.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), NetError> {
        let mut out = Vec::with_capacity(LEN + frame.encoded_len());
        out.extend_from_slice(&(frame.encoded_len() as u32).to_le_bytes());
        out.extend_from_slice(&frame.encode_to_vec());
        self.0.write_all(&out).await.map_err(lost)
    }

    /// Ends the stream and waits until the peer has everything.
    pub async fn end(&mut self) {
        if self.0.finish().is_ok() {
            let _ = self.0.stopped().await;
        }
    }
}

/// Receives control frames.
pub struct FrameReader {
    stream: RecvStream,
    /// What has arrived of frames that are not whole; without memory while there is none.
    held: BytesMut,
}

impl FrameReader {
    fn new(stream: RecvStream) -> Self {
        Self { stream, held: BytesMut::new() }
    }

    /// The next frame; none at the end of the stream. Waiting for it may be given up and taken up again.
    ///
    /// # Errors
    /// The connection is gone, or a frame is malformed or too long.
    pub async fn next(&mut self) -> Result<Option<Frame>, NetError> {
        loop {
            if let Some(frame) = take_frame(&mut self.held)? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(FRAME_MAX, true).await.map_err(lost)? {
                Some(chunk) => self.held.extend_from_slice(&chunk.bytes),
                None if self.held.is_empty() => return Ok(None),
                None => return Err(lost(Broken(None))),
            }
        }
    }
}

/// Takes a frame off the front of what has arrived, if it is whole.
fn take_frame(held: &mut BytesMut) -> Result<Option<Frame>, NetError> {
    let Some(len) = held.first_chunk() else { return Ok(None) };
    let len = u32::from_le_bytes(*len) as usize;
    if len > FRAME_MAX {
        return Err(NetError::Malformed(format!("a control frame of {len} bytes")));
    }
    if held.len() < LEN + len {
        return Ok(None);
    }
    let bytes = held.split_to(LEN + len);
    if held.is_empty() {
        *held = BytesMut::new();
    }
    Frame::decode(&bytes[LEN..]).map(Some).map_err(|error| NetError::Malformed(error.to_string()))
}

/// Opens and accepts the object streams.
pub struct Streams(Connection);

impl Streams {
    /// Opens the stream for objects to the peer.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn open(&self) -> Result<ObjectWriter, NetError> {
        self.0.open_uni().await.map(ObjectWriter).map_err(lost)
    }

    /// Lets a peer send objects that was not let before (see [`transport`](crate::transport)): one stream of them, and
    /// so many bytes beyond what was read.
    pub fn admit(&self, window: u32) {
        crate::transport::admit(&self.0, window);
    }

    /// Lets a peer send so many bytes beyond what is read from now on.
    pub fn set_window(&self, window: u32) {
        crate::transport::set_window(&self.0, window);
    }

    /// Waits for the peer's object stream.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn accept(&self) -> Result<ObjectReader, NetError> {
        self.0.accept_uni().await.map(ObjectReader).map_err(lost)
    }

    /// A handle to close the connection by.
    pub fn hangup(&self) -> Hangup {
        Hangup(self.0.clone())
    }
}

/// Sends objects in order.
pub struct ObjectWriter(SendStream);

impl ObjectWriter {
    /// Sends one object; waits while the path is full.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, object: &Compressed) -> Result<(), NetError> {
        let mut parts = [data::encode_head(object), object.body.clone()];
        self.0.write_all_chunks(&mut parts).await.map_err(lost)
    }

    /// Gives up what was not sent yet, so that nothing is before the last words on the control stream.
    pub fn abandon(&mut self) {
        // It may be over already.
        let _ = self.0.reset(ABANDONED.into());
    }

    /// Says that an object cannot be sent.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_failure(&mut self, damaged: bool, text: &str) -> Result<(), NetError> {
        self.0.write_chunk(data::encode_failure(damaged, text)).await.map_err(lost)
    }
}

/// What arrives on an object stream.
#[derive(Debug)]
pub enum Arrived {
    /// An object.
    Object(Compressed),
    /// Not there, or not ours to read.
    Absent(String),
    /// There but damaged.
    Damaged(String),
}

/// Receives objects in order.
pub struct ObjectReader(RecvStream);

impl ObjectReader {
    /// The next object; none at the end of the stream.
    ///
    /// # Errors
    /// The connection is gone, or what arrives is malformed.
    pub async fn next(&mut self) -> Result<Option<Arrived>, NetError> {
        let mut prefix = [0; PREFIX_LEN];
        match self.0.read_exact(&mut prefix).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(error) => return Err(cut_short(error)),
        }
        let malformed = |error: backhaul_object::FormatError| NetError::Malformed(error.to_string());
        Ok(Some(match data::decode_prefix(&prefix).map_err(malformed)? {
            Announced::Object { header, body } => {
                let header = self.bytes(header).await?;
                let body = Bytes::from(self.bytes(body).await?);
                Arrived::Object(data::decode_object(&header, body).map_err(malformed)?)
            }
            Announced::Absent(len) => Arrived::Absent(self.text(len).await?),
            Announced::Damaged(len) => Arrived::Damaged(self.text(len).await?),
        }))
    }

    async fn bytes(&mut self, len: usize) -> Result<Vec<u8>, NetError> {
        let mut out = vec![0; len];
        self.0.read_exact(&mut out).await.map_err(cut_short)?;
        Ok(out)
    }

    async fn text(&mut self, len: usize) -> Result<String, NetError> {
        Ok(String::from_utf8_lossy(&self.bytes(len).await?).into_owned())
    }
}

#[cfg(test)]
mod tests;
