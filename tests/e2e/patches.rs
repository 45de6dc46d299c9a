//! Large files that change in place: what has not changed is neither sent nor stored again.

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_net::link::Arrived;
use backhaul_object::ids::ClientId;
use backhaul_object::keys::IdKey;
use backhaul_object::patch::{self, Writing};
use backhaul_object::seal::{Packer, identify_content};
use backhaul_object::{Compressed, Kind, Object, ObjectId};
use backhaul_proto::wire::{self, frame};
use backhaul_proto::{end, feature};
use backhaul_tests::{Home, TestServer, trees};
use serde_json::Value;

use crate::peer::{Peer, hello, welcomed};
use crate::prune::{in_days, json};

const PAGE: usize = 4_096;

/// A database of so many pages: text that compresses, the same for the same seed.
fn pages(seed: u64, count: usize) -> Vec<u8> {
    let noise = trees::noise(count * PAGE / 2, seed);
    noise.iter().flat_map(|byte| [b"0123456789abcdef"[usize::from(byte >> 4)], b'a' + (byte & 15)]).collect()
}

/// Rewrites one page in a hundred.
fn update(database: &mut [u8], seed: u64) {
    let count = database.len() / PAGE;
    let chosen = trees::noise(count / 100 * 4, seed);
    for (n, raw) in chosen.chunks_exact(4).enumerate() {
        let page = u32::from_le_bytes(raw.try_into().unwrap()) as usize % count;
        database[page * PAGE..][..PAGE].copy_from_slice(&pages(seed * 10_000 + n as u64 + 1, 1));
    }
}

fn assert_is(client: &Home, snapshot: &str, file: &Path, content: &[u8]) {
    let out = tempfile::tempdir().unwrap();
    client.run(&["restore", snapshot, "-t", out.path().to_str().unwrap(), "--verify"]).ok();
    let restored = fs::read(out.path().join(file.strip_prefix("/").unwrap())).unwrap();
    assert!(restored == content, "{snapshot} is not as it was");
}

/// The snapshot, bytes sent, bytes stored.
pub fn saved(client: &Home) -> (String, u64, u64) {
    let report = client.json(&["backup"]);
    let number = |name: &str| report[name].as_u64().unwrap();
    (report["snapshot"].as_str().unwrap().to_owned(), number("bytes_sent"), number("bytes_stored"))
}

/// Of the largest pack nothing is left that could be read, nor what would make it good.
pub fn lose_largest_pack(server: &TestServer) {
    let largest = server.packs().into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[64..].fill(0);
    fs::write(&largest, bytes).unwrap();
    fs::remove_dir_all(server.home.path().join("server/vaults/main/parity")).unwrap();
}

fn database(dir: &Path, count: usize) -> (PathBuf, PathBuf, Vec<u8>) {
    let tree = dir.join("tree");
    fs::create_dir(&tree).unwrap();
    let (file, content) = (tree.join("data.db"), pages(1, count));
    fs::write(&file, &content).unwrap();
    (tree, file, content)
}

#[test]
fn a_database_costs_what_changed_and_every_version_comes_back_whatever_was_forgotten() {
    let policy = format!("{}keep = {{ last = 9, grace = \"1d\" }}\n", TestServer::quiet_policy());
    let (mut server, dir) = (TestServer::with_policy(&policy), tempfile::tempdir().unwrap());
    let (tree, file, mut content) = database(dir.path(), 4_096);
    let client = server.client("desk", &[&tree]);
    let (first, whole, stored) = saved(&client);
    assert!(whole > 8 << 20 && stored > 8 << 20);
    let mut versions = vec![(first.clone(), content.clone())];
    for seed in 1..=2 {
        update(&mut content, seed);
        fs::write(&file, &content).unwrap();
        let (snapshot, sent, added) = saved(&client);
        assert!(sent * 12 < whole && added * 12 < stored, "{sent} of {whole}, {added} of {stored}");
        versions.push((snapshot, content.clone()));
    }
    // In the middle, too.
    let dump = dir.path().join("dump");
    client.run(&["dump", &format!("latest:{}", file.display()), "-o", dump.to_str().unwrap()]).ok();
    assert!(fs::read(&dump).unwrap() == content);
    versions.iter().for_each(|(snapshot, content)| assert_is(&client, snapshot, &file, content));
    // The oldest goes, and what the others are built on stays.
    server.home.run(&["forget", &first]).ok();
    server.stop();
    for days in [2, 3, 4] {
        let Some(prune) = in_days(days, &server.home, &["prune"]) else { return };
        json(prune);
    }
    server.home.run(&["check", "--read-data", "--verify-content"]).ok();
    server.start();
    assert_eq!(client.json(&["snapshots", "--all"]).as_array().unwrap().len(), 2);
    versions[1..].iter().for_each(|(snapshot, content)| assert_is(&client, snapshot, &file, content));
    // Without what it knew of the file, the agent sends whole chunks once.
    fs::remove_dir_all(client.path().join("agent/state/signatures")).unwrap();
    update(&mut content, 3);
    fs::write(&file, &content).unwrap();
    assert!(saved(&client).1 > whole / 4);
    update(&mut content, 4);
    fs::write(&file, &content).unwrap();
    let (snapshot, sent, _) = saved(&client);
    assert!(sent * 12 < whole, "{sent}");
    assert_is(&client, &snapshot, &file, &content);
}

/// What is built on something that is lost is lost with it, is named, and comes back with the next run.
#[test]
fn a_base_that_is_damaged_is_named_and_the_next_run_heals_what_is_built_on_it() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let (tree, file, before) = database(dir.path(), 2_560);
    let client = server.client("desk", &[&tree]);
    let (old, whole, _) = saved(&client);
    let mut content = before.clone();
    update(&mut content, 1);
    fs::write(&file, &content).unwrap();
    let (new, sent, _) = saved(&client);
    assert!(sent * 12 < whole);
    server.stop();
    lose_largest_pack(&server);
    let look = ["--json", "check", "--read-data", "--verify-content"];
    let found = server.home.run(&look).expect(13).json();
    let paths = |found: &Value| {
        let paths = found["lost"].as_array().unwrap().iter();
        paths.map(|lost| lost["snapshot"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let lost = paths(&found);
    assert!(lost.contains(&old) && lost.contains(&new), "{found}");
    server.home.run(&["check", "--read-data", "--repair"]).expect(13);
    server.start();
    let (again, sent, _) = saved(&client);
    assert!(sent > whole / 2, "it sends the file whole: {sent}");
    assert_is(&client, &again, &file, &content);
    assert_is(&client, &new, &file, &content);
    let out = tempfile::tempdir().unwrap();
    client.run(&["restore", &old, "-t", out.path().to_str().unwrap()]).expect(3);
    server.stop();
    let found = server.home.run(&look).expect(13).json();
    assert_eq!(paths(&found), [old]);
    server.start();
    // And patches are made of what is there now.
    update(&mut content, 2);
    fs::write(&file, &content).unwrap();
    let (latest, sent, _) = saved(&client);
    assert!(sent * 12 < whole, "{sent}");
    assert_is(&client, &latest, &file, &content);
}

/// A client that makes patches by hand.
struct Maker {
    peer: Peer,
    key: IdKey,
}

impl Maker {
    async fn granted(home: &Home) -> Self {
        let (peer, answer) = hello(home, wire::Intent::Backup, wire::Hello::default()).await;
        let welcome = welcomed(answer);
        assert!(welcome.features.iter().any(|name| name == feature::PATCH));
        assert!(ClientId::try_from(&welcome.client_id[..]).is_ok());
        Self { peer, key: IdKey::new(welcome.id_key[..].try_into().unwrap()) }
    }

    fn chunk(&self, content: &[u8]) -> Compressed {
        let payload = content.to_vec().into();
        let object = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload };
        object.compress(&self.key, &mut Packer::new(1).unwrap()).unwrap()
    }

    /// A patch that claims to make a content, by a payload.
    fn patch(&self, content: &[u8], base: ObjectId, payload: Vec<u8>) -> Compressed {
        let (id, proof) = identify_content(&self.key, content);
        let references = vec![patch::base(base)];
        let object = Object { kind: Kind::Patch, references, provides: vec![], payload: payload.into() };
        object.compress_as(id, proof, &mut Packer::new(1).unwrap()).unwrap()
    }

    /// Sends objects; how the server ends it, if it does before they are durable.
    async fn send(&mut self, objects: &[Compressed]) -> Option<wire::End> {
        let mut stream = self.peer.streams.open().await.unwrap();
        for object in objects {
            stream.send(object).await.unwrap();
        }
        loop {
            match self.peer.hear().await {
                Some(frame::Body::End(end)) => return Some(end),
                Some(frame::Body::Durable(durable)) if durable.objects >= objects.len() as u64 => {
                    return None;
                }
                Some(_) => {}
                None => panic!("it hung up without a word"),
            }
        }
    }
}

fn copying(base_len: usize, more: &[u8]) -> Vec<u8> {
    let mut writing = Writing::default();
    writing.copy(0, 0, base_len);
    writing.insert(more);
    writing.finish(1).0.encode()
}

/// A lie with its name, and the code that the session ends with.
type Lie = (&'static str, u32, Compressed);

/// What a client with one chunk of its own, which knows the id of another's, may try.
fn lies(maker: &Maker, mine: &[u8], theirs: &[u8]) -> Vec<Lie> {
    let id_of = |content: &[u8]| identify_content(&maker.key, content).0;
    let of_mine = |content: &[u8], payload| maker.patch(content, id_of(mine), payload);
    let of_theirs = |content: &[u8]| maker.patch(content, id_of(theirs), copying(theirs.len(), b"more"));
    let honest = copying(mine.len(), b"more");
    vec![
        ("of another's, as it is", end::STALE, of_theirs(&[theirs, b"more"].concat())),
        ("of another's, as it is not", end::STALE, of_theirs(b"wrong")),
        ("of nothing", end::STALE, maker.patch(&[mine, b"more"].concat(), ObjectId([7; 32]), honest.clone())),
        ("of another content", end::STALE, of_mine(b"another", honest)),
        ("past the base", end::DATA, of_mine(b"past", copying(mine.len() + 1, b"more"))),
        ("no program", end::DATA, of_mine(b"none", vec![9, 9, 9])),
    ]
}

/// Each ends the session, with the object named, and nothing of it is there afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn patches_that_lie_are_refused_and_tell_nothing_of_what_others_have() {
    let (server, dir) = (TestServer::with_policy(&TestServer::due_policy()), tempfile::tempdir().unwrap());
    let (good, bad) = (server.client("good", &[dir.path()]), server.client("bad", &[dir.path()]));
    let (theirs, mine) = (trees::noise(300_000, 1), trees::noise(300_000, 2));
    for (home, content) in [(&good, &theirs), (&bad, &mine)] {
        let mut maker = Maker::granted(home).await;
        assert_eq!(maker.send(&[maker.chunk(content)]).await, None);
    }
    let mut maker = Maker::granted(&bad).await;
    let whole = [&mine[..], b"honest"].concat();
    let id = identify_content(&maker.key, &mine).0;
    assert_eq!(maker.send(&[maker.patch(&whole, id, copying(mine.len(), b"honest"))]).await, None);
    let mut said = Vec::new();
    for (name, code, lie) in lies(&maker, &mine, &theirs) {
        let mut maker = Maker::granted(&bad).await;
        let end = maker.send(std::slice::from_ref(&lie)).await.unwrap_or_else(|| panic!("{name} is taken"));
        let id = lie.header.id;
        assert!(end.code == code && end.text.contains(&format!("object {id}")), "{name}: {end:?}");
        said.push(end.text.replace(&id.to_string(), "it"));
    }
    assert_eq!(said[0], said[1], "nobody learns whether a guess is right");
    tokio::task::block_in_place(|| server.home.run(&["check", "--read-data", "--verify-content"]).ok());
}

/// What a chunk is built on is not theirs who only have the chunk.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_chunk_may_not_read_what_it_is_built_on() {
    let (server, dir) = (TestServer::with_policy(&TestServer::due_policy()), tempfile::tempdir().unwrap());
    let (first, second) = (server.client("first", &[dir.path()]), server.client("second", &[dir.path()]));
    let old = trees::noise(300_000, 1);
    let new = [&old[..], b"more"].concat();
    let mut maker = Maker::granted(&first).await;
    let base = maker.chunk(&old);
    assert_eq!(maker.send(std::slice::from_ref(&base)).await, None);
    drop(maker);
    let mut maker = Maker::granted(&first).await;
    let patch = maker.patch(&new, base.header.id, copying(old.len(), b"more"));
    assert_eq!(maker.send(std::slice::from_ref(&patch)).await, None);
    drop(maker);
    // The second has the new version, and shows that.
    let mut maker = Maker::granted(&second).await;
    assert_eq!(maker.send(&[maker.chunk(&new), maker.chunk(b"something to wait for")]).await, None);
    drop(maker);
    let (mut peer, answer) = hello(&second, wire::Intent::Browse, wire::Hello::default()).await;
    welcomed(answer);
    let ids = [&patch, &base].map(|object| object.header.id.as_bytes().to_vec().into()).to_vec();
    peer.send(frame::Body::Read(wire::Read { ids, ..Default::default() })).await.unwrap();
    let mut objects = peer.streams.accept().await.unwrap();
    match objects.next().await {
        Ok(Some(Arrived::Object(object))) => {
            assert_eq!((object.header.kind, object.header.id), (Kind::Chunk, patch.header.id));
        }
        _ => panic!("what it has is not sent"),
    }
    assert!(matches!(objects.next().await, Ok(Some(Arrived::Absent(_)))));
}
