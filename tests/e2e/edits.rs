//! Small files that were edited: the server says what they were like, and what has not changed is neither sent nor stored again.

use std::fs;
use std::path::Path;

use backhaul_net::link::Arrived;
use backhaul_object::bundle::BundleBuilder;
use backhaul_object::keys::IdKey;
use backhaul_object::patch::{self, Writing};
use backhaul_object::seal::{Packer, identify_content};
use backhaul_object::{Compressed, Kind, Object};
use backhaul_proto::wire::{self, frame::Body};
use backhaul_proto::{end, feature};
use backhaul_tests::{Home, TestServer, trees};

use crate::patches::{lose_largest_pack, saved};
use crate::peer::{Peer, hello, welcomed};
use crate::prune::{in_days, json};

/// Lines of text, the same for the same seed.
fn text(lines: usize, seed: u64) -> String {
    let line = |raw: &[u8]| {
        format!("line {} of a file that somebody writes\n", u64::from_le_bytes(raw.try_into().unwrap()))
    };
    trees::noise(lines * 8, seed).chunks_exact(8).map(line).collect()
}

/// Inserts a line into each file that is named.
fn edit(tree: &Path, names: impl Iterator<Item = usize>, line: &str) {
    for n in names {
        let path = tree.join(format!("{n:03}.txt"));
        let mut content = fs::read_to_string(&path).unwrap();
        let middle = content.len() / 2;
        content.insert_str(middle, line);
        fs::write(path, content).unwrap();
    }
}

fn assert_is(client: &Home, snapshot: &str, tree: &Path, copy: &Path) {
    let out = tempfile::tempdir().unwrap();
    client.run(&["restore", snapshot, "-t", out.path().to_str().unwrap(), "--verify"]).ok();
    trees::assert_equal(copy, &out.path().join(tree.strip_prefix("/").unwrap()));
}

fn copy_of(tree: &Path, to: &Path) -> std::path::PathBuf {
    let done = std::process::Command::new("cp").arg("-a").args([tree, to]).status().unwrap();
    assert!(done.success());
    to.to_path_buf()
}

#[test]
fn edits_cost_what_they_are_and_every_version_comes_back_whatever_was_forgotten() {
    let policy = format!("{}keep = {{ last = 9, grace = \"1d\" }}\n", TestServer::quiet_policy());
    let (mut server, dir) = (TestServer::with_policy(&policy), tempfile::tempdir().unwrap());
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for n in 0..200 {
        fs::write(tree.join(format!("{n:03}.txt")), text(200 + n * 8, n as u64 + 1)).unwrap();
    }
    let client = server.client("desk", &[&tree]);
    let (first, whole, stored) = saved(&client);
    assert!(whole > 1 << 20 && stored > 1 << 20, "{whole} {stored}");
    let mut versions = vec![(first.clone(), copy_of(&tree, &dir.path().join("v0")))];
    // The third version is of files that were edited before, and of others.
    for (version, every) in [(1, 2), (2, 3)] {
        edit(&tree, (0..200).step_by(every), &format!("line of version {version}\n"));
        let (snapshot, sent, added) = saved(&client);
        assert!(sent * 10 < whole && added * 8 < stored, "{sent} of {whole}, {added} of {stored}");
        versions.push((snapshot, copy_of(&tree, &dir.path().join(format!("v{version}")))));
    }
    versions.iter().for_each(|(snapshot, copy)| assert_is(&client, snapshot, &tree, copy));
    // The first goes, and what the others are built on stays, also where the index is made anew.
    server.home.run(&["forget", &first]).ok();
    server.stop();
    for days in [2, 3, 4] {
        let Some(prune) = in_days(days, &server.home, &["prune"]) else { return };
        json(prune);
    }
    server.home.run(&["check", "--read-data", "--verify-content"]).ok();
    server.home.run(&["check", "--rebuild-index"]).ok();
    server.home.run(&["check", "--read-data", "--verify-content"]).ok();
    server.start();
    versions[1..].iter().for_each(|(snapshot, copy)| assert_is(&client, snapshot, &tree, copy));
    // After that the agent reads everything once.
    saved(&client);
    edit(&tree, (0..200).step_by(5), "line of the last version\n");
    let (last, sent, _) = saved(&client);
    assert!(sent * 10 < whole, "{sent}");
    assert_is(&client, &last, &tree, &tree);
}

/// What is built on a bundle is lost with it, and comes back with the next run, though its content now comes in a bundle.
#[test]
fn edits_of_files_that_are_lost_come_back_with_the_next_run() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for n in 0..40 {
        fs::write(tree.join(format!("{n:03}.txt")), text(400, n as u64 + 1)).unwrap();
    }
    let client = server.client("desk", &[&tree]);
    let (_, whole, _) = saved(&client);
    edit(&tree, 0..40, "a line more\n");
    let (edited, sent, _) = saved(&client);
    assert!(sent * 5 < whole, "{sent} of {whole}");
    let copy = copy_of(&tree, &dir.path().join("edited"));
    server.stop();
    lose_largest_pack(&server);
    server.home.run(&["check", "--read-data", "--repair"]).expect(13);
    server.start();
    fs::write(tree.join("040.txt"), text(400, 77)).unwrap();
    let (again, sent, _) = saved(&client);
    assert!(sent > whole / 2, "it sends all: {sent}");
    assert_is(&client, &again, &tree, &tree);
    assert_is(&client, &edited, &tree, &copy);
}

/// Makes objects by hand.
struct Hand(IdKey);

impl Hand {
    fn bundle(&self, contents: &[&[u8]]) -> Compressed {
        let mut builder = BundleBuilder::default();
        for content in contents {
            let (id, proof) = identify_content(&self.0, content);
            builder.push(id, proof, content);
        }
        builder.finish().compress(&self.0, &mut Packer::new(1).unwrap()).unwrap()
    }

    /// What it makes of a bundle with so many members, marked so: a stretch of it, and more.
    fn patch(&self, made: &[u8], base: &Compressed, members: usize, at: usize, len: usize) -> Compressed {
        let mut writing = Writing::default();
        writing.copy(0, at, len);
        writing.insert(&made[len..]);
        let payload = writing.finish(1).0.encode().into();
        let references = vec![patch::base_of_members(base.header.id, members).unwrap()];
        let object = Object { kind: Kind::Patch, references, provides: vec![], payload };
        let (id, proof) = identify_content(&self.0, made);
        object.compress_as(id, proof, &mut Packer::new(1).unwrap()).unwrap()
    }
}

async fn granted(home: &Home) -> (Peer, Hand) {
    let (peer, answer) = hello(home, wire::Intent::Backup, wire::Hello::default()).await;
    let welcome = welcomed(answer);
    assert!(welcome.features.iter().any(|name| name == feature::SIGN));
    (peer, Hand(IdKey::new(welcome.id_key[..].try_into().unwrap())))
}

/// Sends an object; how the server ends it, if it does before it is durable.
async fn sent(home: &Home, object: &Compressed) -> Option<wire::End> {
    let (mut peer, _) = granted(home).await;
    peer.streams.open().await.unwrap().send(object).await.unwrap();
    loop {
        match peer.hear().await {
            Some(Body::End(end)) => return Some(end),
            Some(Body::Durable(_)) => return None,
            Some(_) => {}
            None => panic!("it hung up without a word"),
        }
    }
}

/// What the server says that a member is like.
async fn signed(home: &Home, object: &Compressed, members: &[u32]) -> Result<Vec<wire::Signed>, wire::End> {
    let (mut peer, _) = granted(home).await;
    let ids = vec![object.header.id.as_bytes().to_vec().into(); members.len()];
    peer.send(Body::Sign(wire::Sign { batch: 1, ids, members: members.to_vec() })).await.unwrap();
    loop {
        match peer.hear().await {
            Some(Body::Signatures(signatures)) => return Ok(signatures.signed),
            Some(Body::End(end)) => return Err(end),
            Some(_) => {}
            None => panic!("it hung up without a word"),
        }
    }
}

/// A patch of a bundle keeps it, and whoever has the file that it makes owns no member by that; nor is anybody told what is another's.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_patch_is_made_of_stays_its_owners() {
    let (server, dir) = (TestServer::with_policy(&TestServer::due_policy()), tempfile::tempdir().unwrap());
    let (first, second) = (server.client("first", &[dir.path()]), server.client("second", &[dir.path()]));
    let old = [trees::noise(5_000, 1), trees::noise(6_000, 2)];
    let new = [&old[1][..], b"more"].concat();
    let (_, hand) = granted(&first).await;
    let bundle = hand.bundle(&[&old[0], &old[1]]);
    assert_eq!(sent(&first, &bundle).await, None);
    let described = signed(&first, &bundle, &[2, 1, 7, 0]).await.unwrap();
    let what: Vec<_> = described.iter().map(|one| (one.of, one.at, one.length, one.members)).collect();
    assert_eq!(
        what,
        [(0, 5_000, 6_000, 2), (1, 0, 5_000, 2)],
        "neither what is not there nor all of a bundle"
    );
    let patch = hand.patch(&new, &bundle, 2, 5_000, 6_000);
    assert_eq!(sent(&first, &patch).await, None);
    let below = signed(&first, &patch, &[0]).await.unwrap();
    assert_eq!((below.len(), below[0].at, below[0].length, below[0].members), (1, 5_000, 6_000, 2));
    assert_eq!(below[0].base, bundle.header.id.as_bytes()[..]);
    // The second has the new version, and shows that.
    let payload = new.clone().into();
    let chunk = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload };
    let chunk = chunk.compress(&hand.0, &mut Packer::new(1).unwrap()).unwrap();
    assert_eq!(sent(&second, &chunk).await, None);
    assert_eq!(signed(&second, &bundle, &[1, 2]).await, Ok(vec![]));
    assert_eq!(signed(&second, &patch, &[0]).await, Ok(vec![]), "not even what its own file was made of");
    let (mut peer, answer) = hello(&second, wire::Intent::Browse, wire::Hello::default()).await;
    welcomed(answer);
    let ids = [&patch, &bundle].map(|object| object.header.id.as_bytes().to_vec().into()).to_vec();
    peer.send(Body::Read(wire::Read { ids, ..Default::default() })).await.unwrap();
    let mut objects = peer.streams.accept().await.unwrap();
    assert!(
        matches!(objects.next().await, Ok(Some(Arrived::Object(object))) if object.header.kind == Kind::Chunk)
    );
    assert!(matches!(objects.next().await, Ok(Some(Arrived::Absent(_)))));
    let guess = hand.patch(&[&old[0][..], b"?"].concat(), &bundle, 2, 0, 5_000);
    assert_eq!(sent(&second, &guess).await.unwrap().code, end::STALE);
    tokio::task::block_in_place(|| server.home.run(&["check", "--read-data", "--verify-content"]).ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_that_are_members_and_questions_without_bounds_are_refused() {
    let (server, dir) = (TestServer::with_policy(&TestServer::due_policy()), tempfile::tempdir().unwrap());
    let client = server.client("desk", &[dir.path()]);
    let old = [trees::noise(5_000, 1), trees::noise(6_000, 2)];
    let new = [&old[1][..], b"more"].concat();
    let (_, hand) = granted(&client).await;
    let bundle = hand.bundle(&[&old[0], &old[1]]);
    assert_eq!(sent(&client, &bundle).await, None);
    for members in [0, 1, 3] {
        let end = sent(&client, &hand.patch(&new, &bundle, members, 5_000, 6_000)).await.unwrap();
        assert!(end.code == end::DATA && end.text.contains("base"), "{members}: {end:?}");
    }
    let end = sent(&client, &hand.patch(&new, &bundle, 2, 5_001, 6_000)).await.unwrap();
    assert_eq!(end.code, end::DATA, "past its end");
    let end = signed(&client, &bundle, &vec![1; 2_049]).await.unwrap_err();
    assert_eq!(end.code, end::PROTOCOL);
    let (mut peer, answer) = hello(&client, wire::Intent::Browse, wire::Hello::default()).await;
    welcomed(answer);
    let ids = vec![bundle.header.id.as_bytes().to_vec().into()];
    peer.send(Body::Sign(wire::Sign { batch: 1, ids, members: vec![1] })).await.unwrap();
    assert!(
        matches!(peer.hear().await, Some(Body::End(end)) if end.code == end::PROTOCOL),
        "only for a backup"
    );
}
