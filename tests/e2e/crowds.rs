//! Several clients with the same contents at the same instant: each content is asked of one of them, and nobody waits long for who
//! does not deliver.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backhaul_object::keys::IdKey;
use backhaul_object::seal::Packer;
use backhaul_object::{Compressed, Kind, Object};
use backhaul_proto::end;
use backhaul_proto::wire::{self, frame::Body};
use backhaul_tests::{Home, TestServer, trees};
use tokio::time::timeout;

use crate::peer::{Peer, hello, welcomed};

/// Whoever asks may begin.
fn policy() -> String {
    TestServer::quiet_policy() + "[admission]\nslots = 12\n"
}

async fn granted(server: &TestServer, name: &str, tree: &Path) -> (Home, Peer, IdKey) {
    let home = tokio::task::block_in_place(|| server.client(name, &[tree]));
    let (peer, answer) = hello(&home, wire::Intent::Backup, wire::Hello::default()).await;
    let welcome = welcomed(answer);
    assert!(welcome.grant.is_some());
    let key = IdKey::new(welcome.id_key[..].try_into().unwrap());
    (home, peer, key)
}

fn chunk(key: &IdKey, seed: u64) -> Compressed {
    let payload = trees::noise(10_000, seed).into();
    let object = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload };
    object.compress(key, &mut Packer::new(1).unwrap()).unwrap()
}

async fn ask(peer: &mut Peer, batch: u64, objects: &[&Compressed]) {
    let prefixes: Vec<u8> =
        objects.iter().flat_map(|object| object.header.id.prefix().to_le_bytes()).collect();
    peer.send(Body::Ask(wire::Ask { batch, prefixes: prefixes.into() })).await.unwrap();
}

async fn answered(peer: &mut Peer) -> (u64, Vec<u8>) {
    loop {
        match peer.hear().await {
            Some(Body::Answers(answers)) => return (answers.batch, answers.codes.to_vec()),
            Some(Body::Durable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_one_session_was_asked_for_is_not_asked_of_another_until_it_has_failed() {
    let (server, dir) = (TestServer::with_policy(&policy()), tempfile::tempdir().unwrap());
    let (_first_home, mut first, key) = granted(&server, "first", dir.path()).await;
    let (_other_home, mut other, _) = granted(&server, "other", dir.path()).await;
    let [one, two, three, own] = [1, 2, 3, 4].map(|seed| chunk(&key, seed));

    ask(&mut first, 0, &[&one]).await;
    assert_eq!(answered(&mut first).await, (0, vec![0]));
    ask(&mut other, 0, &[&own, &one]).await;
    ask(&mut other, 1, &[&own]).await;
    assert!(timeout(Duration::from_millis(300), other.reader.next()).await.is_err(), "it waits");
    let mut stream = first.streams.open().await.unwrap();
    stream.send(&one).await.unwrap();
    // It must show that it has it; its own it is to send. Answers keep their order.
    assert_eq!(answered(&mut other).await, (0, vec![0, 2]));
    assert_eq!(answered(&mut other).await, (1, vec![0]));

    // Nothing comes of the first: for a moment it is waited for, whatever else is said meanwhile.
    ask(&mut first, 1, &[&two]).await;
    assert_eq!(answered(&mut first).await, (1, vec![0]));
    let start = Instant::now();
    ask(&mut other, 2, &[&two]).await;
    for batch in 3..6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        ask(&mut other, batch, &[&own]).await;
    }
    assert_eq!(answered(&mut other).await, (2, vec![0]));
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(1) && waited < Duration::from_secs(6), "{waited:?}");
    for batch in 3..6 {
        assert_eq!(answered(&mut other).await, (batch, vec![0]));
    }

    // Whoever has ended its session is not waited for at all, though its connection is there.
    let (_third_home, mut third, _) = granted(&server, "third", dir.path()).await;
    ask(&mut third, 0, &[&three]).await;
    assert_eq!(answered(&mut third).await, (0, vec![0]));
    let start = Instant::now();
    ask(&mut other, 6, &[&three]).await;
    third.send(Body::End(wire::End { code: end::AGENT, ..Default::default() })).await.unwrap();
    assert_eq!(answered(&mut other).await, (6, vec![0]));
    assert!(start.elapsed() < Duration::from_millis(1_900), "{:?}", start.elapsed());
}

/// Ten machines with the same small files, and some of their own, at the same instant: what they share is stored once.
#[test]
fn what_a_room_of_clients_shares_is_stored_once_though_all_begin_at_once() {
    const CLIENTS: u64 = 10;
    let (server, dir) = (TestServer::with_policy(&policy()), tempfile::tempdir().unwrap());
    let (mut shared, mut own) = (0, 0);
    let clients: Vec<Home> = (0..CLIENTS)
        .map(|client| {
            let tree = dir.path().join(format!("{client}"));
            fs::create_dir_all(&tree).unwrap();
            for n in 0..400_u64 {
                let is_own = n % 20 == 19;
                let seed = if is_own { (client + 1) * 1_000 + n } else { n };
                fs::write(tree.join(format!("{n:04}")), trees::noise(16_000, seed)).unwrap();
                own += if is_own { 16_000 } else { 0 };
                shared += if !is_own && client == 0 { 16_000 } else { 0 };
            }
            server.client(&format!("c{client}"), &[&tree])
        })
        .collect();
    let running: Vec<_> = clients
        .iter()
        .map(|home| {
            let mut command = home.command(&["-q", "backup", "--still", "off"]);
            command.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut client in running {
        assert!(client.wait().unwrap().success());
    }
    let once = shared + own;
    let stored = server.vault_bytes();
    // Some of it twice where a client was not heard of for long.
    assert!(stored < once + shared / 2, "{stored} bytes of {once}, of which {shared} are shared");
    for (n, home) in clients.iter().enumerate() {
        let (tree, out) = (dir.path().join(format!("{n}")), dir.path().join(format!("out-{n}")));
        let what = format!("latest:{}", tree.display());
        home.run(&["-q", "restore", &what, "-t", out.to_str().unwrap()]).ok();
        trees::assert_equal(&tree, &out);
    }
}
