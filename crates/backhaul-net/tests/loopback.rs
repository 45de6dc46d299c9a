//! Real sockets on loopback: enrolment, sessions, and who is turned away.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backhaul_net::authority::Authority;
use backhaul_net::endpoint::{Accepted, Listener, dial_agent, dial_server};
use backhaul_net::enrol::{Application, EnrolError, Refusal, enrol};
use backhaul_net::join_code::{JoinCode, Secret};
use backhaul_net::link::{Arrived, ObjectWriter, Streams};
use backhaul_net::transport::{KEEP_ALIVE, Use};
use backhaul_net::{Identity, Link, NetError, Role};
use backhaul_object::header::{Compressor, Header};
use backhaul_object::keys::IdKey;
use backhaul_object::{Compressed, Kind, Object};
use backhaul_proto::wire::{Frame, List, Read, frame::Body};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn code(authority: &Authority, address: String) -> JoinCode {
    JoinCode {
        expires_at: now() + 60,
        pin: authority.pin(),
        secret: Secret([5; 16]),
        client: "desk".to_owned(),
        addresses: vec![address],
    }
}

fn server(authority: &Authority) -> (Listener, String) {
    let identity = authority.issue_own(Role::Server, "server", now()).unwrap();
    let listener = Listener::server("127.0.0.1:0".parse().unwrap(), &identity, &[7; 32]).unwrap();
    let address = listener.address().unwrap().to_string();
    (listener, address)
}

async fn session(listener: &Listener) -> Result<Link, NetError> {
    match listener.accept().await.unwrap().establish().await? {
        Accepted::Session(link) => Ok(link),
        Accepted::Join(_) => panic!("expected a session"),
    }
}

async fn application(listener: &Listener) -> Application {
    match listener.accept().await.unwrap().establish().await.unwrap() {
        Accepted::Join(connection) => Application::read(connection).await.unwrap(),
        Accepted::Session(_) => panic!("expected an enrolment"),
    }
}

#[tokio::test]
async fn a_new_machine_gets_its_certificates_and_both_directions_work() {
    let authority = Authority::create(now()).unwrap();
    let (listener, address) = server(&authority);
    let code = code(&authority, address.clone());
    let serve = async {
        let application = application(&listener).await;
        assert_eq!(application.invitation(), code.secret.invitation());
        assert!(application.proves(&code.secret.proof_key()));
        assert!(!application.proves(&Secret([6; 16]).proof_key()));
        let (agent, listen) = application.requests();
        let agent = authority.issue(agent, Role::Agent, "desk", now()).unwrap();
        let listen = authority.issue(listen, Role::AgentListener, "desk", now()).unwrap();
        application.answer(Ok(("desk".to_owned(), agent, listen))).await.unwrap();
    };
    let (enrolled, ()) = tokio::join!(enrol(&code), serve);
    let enrolled = enrolled.unwrap();
    assert_eq!(enrolled.client, "desk");

    let home = tempfile::tempdir().unwrap();
    enrolled.agent.save(home.path(), "agent").unwrap();
    let agent = Identity::load(home.path(), "agent").unwrap();
    let (dialled, accepted) = tokio::join!(dial_server(&address, &agent, Use::Work), session(&listener));
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!((accepted.peer().role, accepted.peer().name.as_str()), (Role::Agent, "desk"));
    assert!(accepted.peer().verify(b"message", &agent.sign(b"message").unwrap()));
    assert!(!accepted.peer().verify(b"another", &agent.sign(b"message").unwrap()));
    let (mut send, _r, _s) = dialled.split();
    let (_w, mut receive, _t) = accepted.split();
    let frame = Frame { body: Some(Body::List(List::default())) };
    send.send(&frame).await.unwrap();
    assert_eq!(receive.next().await.unwrap(), Some(frame));

    let dialler = authority.issue_own(Role::ServerDialler, "server", now()).unwrap();
    let agent_side = Listener::agent("127.0.0.1:0".parse().unwrap(), &enrolled.listener).unwrap();
    let at = agent_side.address().unwrap().to_string();
    let (dialled, accepted) = tokio::join!(dial_agent(&at, &dialler, "desk"), session(&agent_side));
    assert_eq!(dialled.unwrap().peer().role, Role::AgentListener);
    assert_eq!(accepted.unwrap().peer().role, Role::ServerDialler);
    let (wrong, _) = tokio::join!(dial_agent(&at, &dialler, "lab"), session(&agent_side));
    assert!(matches!(wrong, Err(NetError::WrongRole { .. })));
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_with_another_pin() {
    let (authority, other) = (Authority::create(now()).unwrap(), Authority::create(now()).unwrap());
    let (listener, address) = server(&other);
    let code = code(&authority, address);
    let serve = async { listener.accept().await.unwrap().establish().await.is_err() };
    let (enrolled, refused) = tokio::join!(enrol(&code), serve);
    assert!(matches!(enrolled, Err(EnrolError::Net(NetError::WrongAuthority { .. }))));
    assert!(refused);
}

#[tokio::test]
async fn a_refusal_arrives_in_words() {
    let authority = Authority::create(now()).unwrap();
    let (listener, address) = server(&authority);
    let code = code(&authority, address);
    let serve = async { application(&listener).await.answer(Err(Refusal::Spent)).await.unwrap() };
    let (enrolled, ()) = tokio::join!(enrol(&code), serve);
    assert_eq!(enrolled.err().unwrap().to_string(), "this join code was already used");
}

#[tokio::test]
async fn certificates_of_another_authority_or_purpose_are_turned_away() {
    let (authority, other) = (Authority::create(now()).unwrap(), Authority::create(now()).unwrap());
    let (listener, address) = server(&authority);
    let stranger = other.issue_own(Role::Agent, "desk", now()).unwrap();
    let (dialled, accepted) = tokio::join!(dial_server(&address, &stranger, Use::Work), session(&listener));
    assert!(matches!(dialled, Err(NetError::WrongAuthority { .. })));
    assert!(accepted.is_err());
    let dialler = authority.issue_own(Role::ServerDialler, "server", now()).unwrap();
    let (_, accepted) = tokio::join!(dial_server(&address, &dialler, Use::Work), session(&listener));
    assert!(matches!(accepted, Err(NetError::WrongRole { .. })));
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_a_question_of_clocks() {
    let year = 365 * 86_400;
    let authority = Authority::create(now() + year).unwrap();
    let identity = authority.issue_own(Role::Server, "server", now() + year).unwrap();
    let listener = Listener::server("127.0.0.1:0".parse().unwrap(), &identity, &[7; 32]).unwrap();
    let address = listener.address().unwrap().to_string();
    let agent = authority.issue_own(Role::Agent, "desk", now() + year).unwrap();
    let (dialled, _) = tokio::join!(dial_server(&address, &agent, Use::Work), session(&listener));
    assert!(matches!(dialled, Err(NetError::Clock { .. })), "{:?}", dialled.err());
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let authority = Authority::create(now()).unwrap();
    let agent = authority.issue_own(Role::Agent, "desk", now()).unwrap();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    assert!(matches!(dial_server(&address, &agent, Use::Work).await, Err(NetError::Unreachable { .. })));
    assert!(matches!(
        dial_server("no-such-host.invalid:1", &agent, Use::Work).await,
        Err(NetError::Resolve { .. })
    ));
}

/// The next dial, which must first show its address.
async fn challenged(listener: &Listener) -> Link {
    loop {
        if let Some(known) = listener.accept().await.unwrap().challenge() {
            match known.establish().await.unwrap() {
                Accepted::Session(link) => return link,
                Accepted::Join(_) => panic!("expected a session"),
            }
        }
    }
}

/// One more stream of objects, where the other side has room for it within a time.
async fn taken(streams: &Streams, within: Duration) -> Option<ObjectWriter> {
    tokio::time::timeout(within, streams.open()).await.ok().map(Result::unwrap)
}

#[tokio::test]
async fn a_server_takes_objects_of_whom_it_has_admitted_and_one_stream_of_them() {
    let authority = Authority::create(now()).unwrap();
    let (listener, address) = server(&authority);
    let agent = authority.issue_own(Role::Agent, "desk", now()).unwrap();
    for wanted in [Use::Work, Use::Standing(KEEP_ALIVE)] {
        let (dialled, accepted) = tokio::join!(dial_server(&address, &agent, wanted), challenged(&listener));
        let (_writer, _reader, ours) = dialled.unwrap().split();
        let (_writer, _reader, theirs) = accepted.split();
        let (never, soon) = (Duration::from_millis(300), Duration::from_secs(60));
        assert!(taken(&ours, never).await.is_none(), "{wanted:?}");
        theirs.admit(32 << 20);
        let first = taken(&ours, soon).await;
        assert!(first.is_some() && taken(&ours, never).await.is_none(), "{wanted:?}");
    }
}

#[tokio::test]
async fn frames_arrive_whole_though_waiting_for_them_is_given_up_again_and_again() {
    let authority = Authority::create(now()).unwrap();
    let (listener, address) = server(&authority);
    let agent = authority.issue_own(Role::Agent, "desk", now()).unwrap();
    let (dialled, accepted) = tokio::join!(dial_server(&address, &agent, Use::Work), session(&listener));
    let (mut writer, _r, _s) = dialled.unwrap().split();
    let (_w, mut reader, _t) = accepted.unwrap().split();
    let frames: Vec<Frame> = (1..40)
        .map(|n| Frame {
            body: Some(Body::Read(Read {
                ids: vec![vec![n; usize::from(n) * 9_000].into()],
                ..Default::default()
            })),
        })
        .collect();
    let sent = frames.clone();
    let send = async move {
        for frame in &sent {
            // Whoever listens does wait.
            tokio::time::sleep(Duration::from_millis(1)).await;
            writer.send(frame).await.unwrap();
        }
        writer.end().await;
    };
    let receive = async {
        let (mut got, mut given_up) = (Vec::new(), 0);
        loop {
            match tokio::time::timeout(Duration::from_micros(50), reader.next()).await {
                Err(_) => given_up += 1,
                Ok(Ok(Some(frame))) => got.push(frame),
                Ok(end) => return (end.unwrap(), got, given_up),
            }
        }
    };
    let ((), (end, got, given_up)) = tokio::join!(send, receive);
    assert_eq!((end, got), (None, frames));
    assert!(given_up > 0, "it never waited");
}

#[tokio::test]
async fn a_tiny_window_and_a_reader_that_rests_hold_the_sender_back_and_nothing_is_lost() {
    const OBJECTS: usize = 40;
    let authority = Authority::create(now()).unwrap();
    let (listener, address) = server(&authority);
    let agent = authority.issue_own(Role::Agent, "desk", now()).unwrap();
    let (dialled, accepted) = tokio::join!(dial_server(&address, &agent, Use::Work), session(&listener));
    let ((_w, _r, out), (_v, _s, into)) = (dialled.unwrap().split(), accepted.unwrap().split());
    into.admit(16 << 10);
    let object = |n: usize| {
        let payload = bytes::Bytes::from(vec![n as u8; 1 << 20]);
        let object = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload };
        let (id, proof) = object.identify(&IdKey::new([1; 32]));
        let header = Header {
            kind: Kind::Chunk,
            id,
            proof,
            compressor: Compressor::Raw,
            plain_len: 1 << 20,
            references: vec![],
            provides: vec![],
        };
        Compressed { header, body: object.payload }
    };
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let send = async move {
        let mut writer = out.open().await.unwrap();
        for n in 0..OBJECTS {
            writer.send(&object(n)).await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
        }
        // The connection ends with it.
        out
    };
    let sending = tokio::spawn(send);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // What a sender keeps is bounded by its own window, which is 12 MiB.
    assert!(sent.load(Ordering::SeqCst) <= 13, "{sent:?} objects were taken though nobody reads");
    let mut reader = into.accept().await.unwrap();
    for n in 0..OBJECTS {
        let Some(Arrived::Object(arrived)) = reader.next().await.unwrap() else { panic!("no object {n}") };
        assert!(arrived.body.iter().all(|byte| *byte == n as u8) && arrived.body.len() == 1 << 20);
    }
    sending.await.unwrap();
}
