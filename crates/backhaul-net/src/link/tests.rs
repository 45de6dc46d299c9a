//! Peers that lie about what they send, over real connections.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::Role;
use crate::authority::Authority;
use crate::endpoint::{Accepted, Listener, dial_server};
use crate::transport::Use;

/// The two ends of a session whose agent may send objects.
async fn pair() -> (Link, Link, Listener) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let authority = Authority::create(now).unwrap();
    let issue = |role| authority.issue_own(role, "desk", now).unwrap();
    let listener = Listener::server("127.0.0.1:0".parse().unwrap(), &issue(Role::Server), &[7; 32]).unwrap();
    let (address, agent) = (listener.address().unwrap().to_string(), issue(Role::Agent));
    let accept = async {
        match listener.accept().await.unwrap().establish().await.unwrap() {
            Accepted::Session(link) => link,
            Accepted::Join(_) => panic!("expected a session"),
        }
    };
    let (dialled, accepted) = tokio::join!(dial_server(&address, &agent, Use::Work), accept);
    crate::transport::admit(&accepted.connection, 32 << 20);
    (dialled.unwrap(), accepted, listener)
}

/// What the server makes of bytes on an object stream, which then ends, or breaks off.
async fn hears(bytes: &[u8], breaks_off: bool) -> Result<Option<Arrived>, NetError> {
    let (agent, server, _listener) = pair().await;
    let mut writer = agent.split().2.open().await.unwrap();
    writer.0.write_all(bytes).await.unwrap();
    match breaks_off {
        true => writer.abandon(),
        false => writer.0.finish().unwrap(),
    }
    let (_writer, _reader, streams) = server.split();
    streams.accept().await.unwrap().next().await
}

fn prefix(status: u8, header: u32, body: u32) -> Vec<u8> {
    [&[status][..], &header.to_le_bytes(), &body.to_le_bytes()].concat()
}

fn is_blamed(heard: &Result<Option<Arrived>, NetError>) -> bool {
    matches!(heard, Err(NetError::Malformed(_)))
}

#[tokio::test]
async fn lengths_that_are_announced_and_not_sent_are_the_senders_fault() {
    let short = [prefix(0, 100, 1_000), vec![0; 90]].concat();
    assert!(is_blamed(&hears(&short, false).await), "in the header");
    assert!(is_blamed(&hears(&[0, 1, 0], false).await), "in the lengths");
    let short = [prefix(2, 0, 20), b"damaged".to_vec()].concat();
    assert!(is_blamed(&hears(&short, false).await), "in the words");
    assert!(matches!(hears(&[], false).await, Ok(None)), "a stream may end between objects");
}

#[tokio::test]
async fn lengths_over_the_limits_and_unknown_kinds_are_refused_before_anything_is_made_for_them() {
    for bytes in [prefix(0, u32::MAX, 0), prefix(0, 0, u32::MAX), prefix(1, 0, 2_000), prefix(9, 0, 0)] {
        assert!(is_blamed(&hears(&bytes, false).await), "{bytes:?}");
    }
    // More than was announced is the begin of another object.
    let more = [prefix(1, 0, 4), b"gonenonsense that follows".to_vec()].concat();
    let (agent, server, _listener) = pair().await;
    let mut writer = agent.split().2.open().await.unwrap();
    writer.0.write_all(&more).await.unwrap();
    let mut reader = server.split().2.accept().await.unwrap();
    assert!(matches!(reader.next().await, Ok(Some(Arrived::Absent(text))) if text == "gone"));
    assert!(is_blamed(&reader.next().await));
}

#[tokio::test]
async fn objects_that_are_given_up_are_not_mistaken_for_a_lost_connection() {
    let heard = hears(&prefix(0, 100, 1_000), true).await;
    assert!(matches!(heard, Err(NetError::Abandoned)), "{heard:?}");
}

#[tokio::test]
async fn control_frames_over_the_limit_or_of_nonsense_are_refused() {
    for bytes in
        [(FRAME_MAX as u32 + 1).to_le_bytes().to_vec(), [&4u32.to_le_bytes()[..], &[255; 4]].concat()]
    {
        let (agent, server, _listener) = pair().await;
        let (mut writer, _reader, _streams) = agent.split();
        writer.0.write_all(&bytes).await.unwrap();
        let heard = server.split().1.next().await;
        assert!(matches!(heard, Err(NetError::Malformed(_))), "{heard:?}");
    }
}
