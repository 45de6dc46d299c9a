//! Servers that have gone mad, or were taken over: what they cost an agent is bounded, and it goes on with a sane one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backhaul_net::Identity;
use backhaul_net::endpoint::{Accepted, Listener};
use backhaul_proto::wire::{self, frame::Body};
use backhaul_proto::{PROTOCOL, end};
use backhaul_tests::{Home, PATIENCE, TestServer, trees, wait_until};
use tokio::time::timeout;

use crate::peer::{Peer, hello, welcomed};

/// A server with the real one's certificate and manners of its own.
struct MadServer {
    listener: Listener,
    /// Runs that were asked for because of a nudge.
    nudged: Arc<AtomicUsize>,
}

impl MadServer {
    /// Takes the place of the real one.
    fn instead_of(server: &mut TestServer) -> Self {
        server.stop();
        let identity = Identity::load(&server.home.path().join("server/tls"), "server").unwrap();
        let address = format!("127.0.0.1:{}", server.port).parse().unwrap();
        let listener = Listener::server(address, &identity, &[7; 32]).unwrap();
        Self { listener, nudged: Arc::default() }
    }

    /// The real one is back.
    async fn give_way(self, server: &mut TestServer) {
        self.listener.close("").await;
        drop(self.listener);
        let address = ("127.0.0.1", server.port);
        wait_until("its port is free", || std::net::UdpSocket::bind(address).is_ok());
        server.start();
    }

    /// The next link that an agent wants to keep. Whoever wants a run meanwhile is counted and sent away.
    async fn link(&self) -> Peer {
        loop {
            // Whoever gives up on the way comes again.
            let Ok(Accepted::Session(link)) = self.listener.accept().await.unwrap().establish().await else {
                continue;
            };
            let mut peer = Peer::over(link);
            let Some(Body::Hello(hello)) = peer.hear().await else { continue };
            match hello.intent() {
                wire::Intent::Attend => {
                    let verdict = wire::Verdict { due_in: 1_000_000, stay: true, ..Default::default() };
                    let welcome =
                        wire::Welcome { protocol: PROTOCOL, verdict: Some(verdict), ..Default::default() };
                    peer.send(Body::Welcome(welcome)).await.unwrap();
                    return peer;
                }
                _ => {
                    let end = wire::End { code: end::BUSY, after: 3_600, ..Default::default() };
                    peer.send(Body::End(end)).await.unwrap();
                    // It leaves by itself.
                    while peer.hear().await.is_some() {}
                    let nudged = hello.trigger() == wire::Trigger::Nudge;
                    self.nudged.fetch_add(usize::from(nudged), Ordering::SeqCst);
                }
            }
        }
    }

    /// Sends nudges, and lets runs be asked for, until so many nudges are answered and so many runs were asked for by now;
    /// how many nudges were answered.
    async fn nudge(
        &self,
        peer: &mut Peer,
        ids: impl Iterator<Item = u64>,
        cause: wire::Cause,
        (answers, runs): (usize, usize),
    ) -> usize {
        for id in ids {
            let nudge = wire::Nudge { id, cause: cause.into(), ttl: 600 };
            peer.send(Body::Nudge(nudge)).await.unwrap();
        }
        let answered = AtomicUsize::new(0);
        let listen = async {
            while let Ok(Some(frame)) = peer.reader.next().await {
                let is_answer = matches!(frame.body, Some(Body::NudgeReply(_)));
                answered.fetch_add(usize::from(is_answer), Ordering::SeqCst);
            }
        };
        let enough = async {
            while answered.load(Ordering::SeqCst) < answers || self.nudged.load(Ordering::SeqCst) < runs {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // What is too much takes a moment, too, and nothing says when that was all.
            tokio::time::sleep(Duration::from_secs(3)).await;
        };
        tokio::select! {
            _ = timeout(PATIENCE, enough) => {}
            _ = async { tokio::join!(listen, self.link()) } => panic!("the agent has left its link"),
        }
        answered.into_inner()
    }
}

/// A laptop whose link stands; nothing is due.
fn linked(server: &TestServer) -> (Home, tempfile::TempDir) {
    let (dir, laptop) = (tempfile::tempdir().unwrap(), Home::new());
    let tree = trees::everything(dir.path());
    server.join(&laptop, "laptop", &["--initiator", "hybrid"], &[&tree]);
    (laptop, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nudges_without_end_costs_a_few_runs_an_hour_and_the_same_nudge_one() {
    let mut server = TestServer::new();
    let (laptop, _dir) = linked(&server);
    let _agent = laptop.start(&["-v", "agent", "run", "--no-listen"]);
    wait_until("its link stands", || server.home.json(&["status"])[0]["link"] == "standing");
    let mad = MadServer::instead_of(&mut server);
    let mut peer = mad.link().await;
    let runs = || mad.nudged.load(Ordering::SeqCst);
    let answered = mad.nudge(&mut peer, std::iter::repeat_n(1, 20), wire::Cause::Due, (20, 1)).await;
    assert_eq!((answered, runs()), (20, 1), "the same nudge is one nudge, however often it comes");
    let answered = mad.nudge(&mut peer, 2..400, wire::Cause::Overdue, (5, 2)).await;
    assert!(answered == 5 && (2..=6).contains(&runs()), "{answered} answers, {} runs", runs());
    // Not even if it says that somebody asked.
    let answered = mad.nudge(&mut peer, 400..800, wire::Cause::Manual, (6, 3)).await;
    assert!(answered == 6 && (3..=12).contains(&runs()), "{answered} answers, {} runs", runs());

    drop(peer);
    mad.give_way(&mut server).await;
    tokio::task::block_in_place(|| laptop.run(&["backup"]).ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_talks_without_end_loses_its_link_and_is_dialled_again_later() {
    let mut server = TestServer::new();
    let (laptop, _dir) = linked(&server);
    let agent = laptop.start(&["-v", "agent", "run", "--no-listen"]);
    wait_until("its link stands", || server.home.json(&["status"])[0]["link"] == "standing");
    let mad = MadServer::instead_of(&mut server);
    let mut peer = mad.link().await;
    let verdict = wire::Verdict { due_in: 1_000_000, stay: true, ..Default::default() };
    let mut said = 0;
    while said < 200_000 && peer.send(Body::Verdict(verdict)).await.is_ok() {
        said += 1;
    }
    assert!(said < 200_000, "it listens to everything");
    agent.says("the server says too much");
    drop(peer);
    mad.give_way(&mut server).await;
    tokio::task::block_in_place(|| {
        wait_until("it is linked again", || server.home.json(&["status"])[0]["link"] == "standing");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_list_of_snapshots_has_no_end_is_named_and_left() {
    let mut server = TestServer::new();
    let (laptop, _dir) = linked(&server);
    let (_, answer) = hello(&laptop, wire::Intent::Browse, wire::Hello::default()).await;
    let welcome = welcomed(answer);
    let mad = MadServer::instead_of(&mut server);
    let lists = async {
        let Accepted::Session(link) = mad.listener.accept().await.unwrap().establish().await.unwrap() else {
            panic!("nobody lists");
        };
        let mut peer = Peer::over(link);
        assert!(matches!(peer.hear().await, Some(Body::Hello(_))));
        peer.send(Body::Welcome(welcome)).await.unwrap();
        assert!(matches!(peer.hear().await, Some(Body::List(_))));
        let row = wire::SnapshotRow { body: vec![7; 100].into(), ..Default::default() };
        let page = wire::Snapshots { rows: vec![row; 5_000], more: true };
        let mut pages = 0;
        while pages < 1_000 && peer.send(Body::Snapshots(page.clone())).await.is_ok() {
            pages += 1;
        }
        pages
    };
    let listing = tokio::task::spawn_blocking(move || (laptop.run(&["snapshots"]), laptop));
    let (pages, listed) = tokio::join!(lists, listing);
    let (listed, laptop) = listed.unwrap();
    assert!(pages < 1_000, "it listens to everything");
    assert_eq!(listed.code, 1, "{listed:?}");
    let named = format!("the server at 127.0.0.1:{}", server.port);
    assert!(listed.err.contains(&named) && listed.err.contains("has no end"), "{}", listed.err);
    mad.give_way(&mut server).await;
    tokio::task::block_in_place(|| laptop.run(&["snapshots"]).ok());
}
