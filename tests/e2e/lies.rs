//! Clients that lie about what they send: each is refused by name, costs little memory, and harms nobody.

use std::fs;

use backhaul_object::header::Compressor;
use backhaul_object::keys::IdKey;
use backhaul_object::seal::Packer;
use backhaul_object::{Compressed, Kind, Object};
use backhaul_proto::end;
use backhaul_proto::wire::{self, frame::Body};
use backhaul_tests::{Home, TestServer, trees, wait_until};
use serde_json::Value;

use crate::peer::{Peer, hello, welcomed};

/// Whoever asks may begin.
fn policy() -> String {
    TestServer::due_policy() + "[admission]\nslots = 4\n"
}

struct Scene {
    server: TestServer,
    bad: Home,
    good: Home,
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let (server, dir) = (TestServer::with_policy(&policy()), tempfile::tempdir().unwrap());
        let tree = trees::everything(dir.path());
        let (bad, good) = (server.client("bad", &[&tree]), server.client("good", &[&tree]));
        Self { server, bad, good, dir }
    }

    /// A client with a grant, and the key by which objects are named.
    async fn granted(&self) -> (Peer, IdKey) {
        let (peer, answer) = hello(&self.bad, wire::Intent::Backup, wire::Hello::default()).await;
        let welcome = welcomed(answer);
        assert!(welcome.grant.is_some());
        (peer, IdKey::new(welcome.id_key[..].try_into().unwrap()))
    }

    /// The last run of the liar.
    fn run(&self) -> Value {
        let runs = self.server.home.json(&["runs", "--client", "bad"]);
        runs.as_array().unwrap().iter().max_by_key(|run| run["id"].as_u64()).unwrap().clone()
    }

    /// The session ends with a code; the run says why, and so does the server's log.
    async fn is_named(&self, peer: &mut Peer, code: u32, words: &str) {
        let end = loop {
            match peer.hear().await {
                Some(Body::End(end)) => break end,
                Some(_) => {}
                None => panic!("it hung up without a word: {}", self.server.said()),
            }
        };
        assert!(end.code == code && end.text.contains(words), "{end:?}");
        tokio::task::block_in_place(|| {
            wait_until("the run has failed", || self.run()["state"] == "failed");
            let run = self.run();
            assert!(run["why"].as_str().unwrap().contains(words), "{run}");
            self.server.says(words);
            self.good.run(&["backup"]).ok();
        });
    }

    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.pid().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
    }
}

fn chunk(key: &IdKey, payload: Vec<u8>) -> Compressed {
    let object = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload: payload.into() };
    object.compress(key, &mut Packer::new(1).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_not_what_their_headers_say_are_refused_by_name() {
    let scene = Scene::new();
    let noise = |n| trees::noise(100_000, n);
    type Lie = fn(Compressed) -> Compressed;
    let lies: [Lie; 4] = [
        // Less than it says, more, something else, and another length.
        |object| Compressed { body: object.body.slice(..object.body.len() / 2), ..object },
        |object| Compressed { body: [&object.body[..], &[0; 1_000]].concat().into(), ..object },
        |object| Compressed { body: vec![7; object.body.len()].into(), ..object },
        |mut object| {
            object.header.plain_len = 10;
            object
        },
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        let (mut peer, key) = scene.granted().await;
        let mut stream = peer.streams.open().await.unwrap();
        stream.send(&lie(chunk(&key, noise(n as u64)))).await.unwrap();
        scene.is_named(&mut peer, end::DATA, "object").await;
    }
}

/// Frames of some KiB that unpack to far more than they say, or than any object may have.
#[tokio::test(flavor = "multi_thread")]
async fn compression_bombs_are_refused_by_name_and_take_no_memory() {
    const GIB: u64 = 1 << 30;
    let scene = Scene::new();
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), GIB), 1).unwrap();
    assert!(bomb.len() < 100_000);
    let before = scene.memory();
    for plain_len in [10, 4 << 20, 8 << 20] {
        let (mut peer, key) = scene.granted().await;
        let object = chunk(&key, vec![0; 4 << 20]);
        assert!(object.header.compressor == Compressor::Zstd && object.body.len() < 10_000);
        let mut header = object.header;
        header.plain_len = plain_len;
        let mut stream = peer.streams.open().await.unwrap();
        stream.send(&Compressed { header, body: bomb.clone().into() }).await.unwrap();
        scene.is_named(&mut peer, end::DATA, "object").await;
    }
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < GIB / 8, "{} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_are_not_true_and_questions_out_of_turn_are_refused_by_name() {
    let scene = Scene::new();
    let snapshot = |key: &IdKey, objects| {
        let manifest = chunk(key, b"no manifest at all".to_vec());
        Body::Commit(wire::Commit {
            objects,
            header: manifest.header.encode().into(),
            body: manifest.body,
            signature: vec![0; 64].into(),
            ..Default::default()
        })
    };
    let (mut peer, key) = scene.granted().await;
    peer.send(snapshot(&key, u64::MAX)).await.unwrap();
    scene.is_named(&mut peer, end::DATA, "signed").await;

    let (mut peer, _) = scene.granted().await;
    let mut stream = peer.streams.open().await.unwrap();
    stream.send_failure(true, "nothing of the kind").await.unwrap();
    scene.is_named(&mut peer, end::PROTOCOL, "a failure on the data stream").await;

    let (mut peer, _) = scene.granted().await;
    peer.streams.open().await.unwrap().abandon();
    scene.is_named(&mut peer, end::PROTOCOL, "gave its objects up").await;

    let ask = |batch, prefixes: usize| Body::Ask(wire::Ask { batch, prefixes: vec![1; prefixes * 8].into() });
    for body in [ask(1, 2_049), ask(1, 0), Body::Prove(wire::Prove { batch: 9, proofs: vec![0; 48].into() })]
    {
        let (mut peer, _) = scene.granted().await;
        peer.send(body).await.unwrap();
        scene.is_named(&mut peer, end::PROTOCOL, "protocol").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_without_end_end_a_run_and_are_named() {
    let scene = Scene::new();
    for word in [Body::Report(wire::Report::default()), Body::List(wire::List::default())] {
        let (mut peer, _) = scene.granted().await;
        for _ in 0..5_000 {
            if peer.send(word.clone()).await.is_err() {
                break;
            }
        }
        scene.is_named(&mut peer, end::BUSY, "says too much").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_costs_the_server_little_memory() {
    let scene = Scene::new();
    let (mut peer, key) = scene.granted().await;
    let mut stream = peer.streams.open().await.unwrap();
    let before = scene.memory();
    // Objects that are stored, asked for again and again, and never taken.
    let mut ids = Vec::new();
    for n in 0..4 {
        let object = chunk(&key, trees::noise(4 << 20, n));
        ids.push(object.header.id.as_bytes().to_vec().into());
        stream.send(&object).await.unwrap();
    }
    while !matches!(peer.hear().await, Some(Body::Durable(durable)) if durable.objects == 4) {}
    let read =
        Body::Read(wire::Read { ids: ids.into_iter().cycle().take(4_000).collect(), ..Default::default() });
    let asking = async {
        for _ in 0..200 {
            peer.send(read.clone()).await.unwrap();
        }
    };
    let stuck = tokio::time::timeout(std::time::Duration::from_secs(4), asking).await;
    assert!(stuck.is_err(), "the server takes questions without end");
    // Sessions that are not let in yet, each with all that a connection takes.
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let (peer, answer) = hello(&scene.bad, wire::Intent::Browse, wire::Hello::default()).await;
        welcomed(answer);
        let opened = tokio::time::timeout(std::time::Duration::from_millis(200), peer.streams.open()).await;
        assert!(opened.is_err(), "who may not send objects has no stream for them");
        waiting.push(peer);
    }
    let grown = scene.memory().saturating_sub(before);
    assert!(grown < 192 << 20, "{} MiB", grown >> 20);
    tokio::task::block_in_place(|| scene.good.run(&["backup"]).ok());
    assert!(scene.dir.path().exists());
}
