//! Snapshots that no honest client makes, as far as a server takes them in, restored by the real program: each lie is named,
//! costs little memory, and nothing lands where it must not.

use std::fs;

use backhaul_agent::home::AgentHome;
use backhaul_object::entry::{Body, Content, Entry, Metadata, Totals};
use backhaul_object::ids::{ClientId, VaultId};
use backhaul_object::keys::IdKey;
use backhaul_object::node::{DirectoryBuilder, write_root};
use backhaul_object::piece::Piece;
use backhaul_object::seal::Packer;
use backhaul_object::snapshot::Snapshot;
use backhaul_object::{Compressed, Kind, Object, ObjectId, Reference, flist};
use backhaul_proto::end;
use backhaul_proto::goodbye::Goodbye;
use backhaul_proto::wire::{self, frame};
use backhaul_tests::{Home, TestServer, measured, trees, wait_until};

use crate::peer::{Peer, hello, welcomed};

/// Objects in the order in which they are sent.
struct Forge {
    key: IdKey,
    objects: Vec<Object>,
}

impl Forge {
    fn add(&mut self, object: Object) -> ObjectId {
        let id = object.identify(&self.key).0;
        self.objects.push(object);
        id
    }

    fn chunk(&mut self, payload: Vec<u8>) -> Piece {
        let len = payload.len() as u64;
        let object =
            Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload: payload.into() };
        Piece::Data { id: self.add(object), len }
    }

    fn root(&mut self, entries: Vec<Entry>) -> (ObjectId, Totals) {
        let (key, objects) = (self.key.clone(), &mut self.objects);
        let mut builder = DirectoryBuilder::new(&key);
        for entry in entries {
            builder.push(entry, &mut |_, object| objects.push(object));
        }
        let done = builder.finish(&mut |_, object| objects.push(object));
        write_root(done, &key, &mut |_, object| objects.push(object))
    }

    fn packed(&self) -> Vec<Compressed> {
        let mut packer = Packer::new(1).unwrap();
        self.objects.iter().map(|object| object.clone().compress(&self.key, &mut packer).unwrap()).collect()
    }
}

fn entry(name: &str, body: Body) -> Entry {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let metadata = Metadata { mode: 0o755, uid, gid, mtime_s: 1_600_000_000, mtime_ns: 0 };
    Entry { name: name.into(), metadata, body, extensions: vec![] }
}

fn file(size: u64, content: Content) -> Body {
    Body::File { size, content, link: None }
}

async fn granted(home: &Home) -> (Peer, wire::Welcome, Forge) {
    let (peer, answer) = hello(home, wire::Intent::Backup, wire::Hello::default()).await;
    let welcome = welcomed(answer);
    let key = IdKey::new(welcome.id_key[..].try_into().unwrap());
    (peer, welcome, Forge { key, objects: vec![] })
}

/// Sends all that was forged, and when it is there a manifest that is signed as it should be.
async fn commit(
    home: &Home,
    peer: &mut Peer,
    welcome: &wire::Welcome,
    forge: &Forge,
    (root, totals): (ObjectId, Totals),
) {
    let mut stream = peer.streams.open().await.unwrap();
    let objects = forge.packed();
    for object in &objects {
        stream.send(object).await.unwrap();
    }
    loop {
        match peer.hear().await {
            Some(frame::Body::Durable(durable)) if durable.objects == objects.len() as u64 => break,
            Some(frame::Body::Durable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let grant = welcome.grant.clone().unwrap();
    let vault = backhaul_object::descriptor::Descriptor::decode(&welcome.descriptor).unwrap().vault;
    let manifest = Snapshot {
        vault: VaultId(vault.0),
        client: ClientId::try_from(&welcome.client_id[..]).unwrap(),
        sequence: grant.sequence,
        previous: None,
        root,
        client_time: 1,
        paths: vec![b"/forged".to_vec()],
        tags: vec![],
        totals,
        errors: 0,
        not_kept: vec![],
    };
    let manifest = manifest.encode().compress(&forge.key, &mut Packer::new(1).unwrap()).unwrap();
    let identity = AgentHome::at(home.path()).agent().unwrap();
    let signature = identity.sign(manifest.header.id.as_bytes()).unwrap().into();
    let (header, body) = (manifest.header.encode().into(), manifest.body);
    let commit =
        wire::Commit { objects: objects.len() as u64, header, body, signature, ..Default::default() };
    peer.send(frame::Body::Commit(commit)).await.unwrap();
}

async fn committed(peer: &mut Peer) {
    loop {
        match peer.hear().await {
            Some(frame::Body::Committed(_)) => return,
            Some(frame::Body::Durable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What a run has changed is held against the brake also when nobody stays to hear that it was committed.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_with_the_commit_is_judged_all_the_same() {
    let (server, dir) = (TestServer::with_policy(&TestServer::due_policy()), tempfile::tempdir().unwrap());
    let bad = server.client("bad", &[dir.path()]);
    let (mut peer, welcome, mut forge) = granted(&bad).await;
    forge.chunk(vec![7; 3 << 20]);
    let root = forge.root(vec![entry("honest", file(6, Content::Inline(b"honest".to_vec())))]);
    commit(&bad, &mut peer, &welcome, &forge, root).await;
    peer.send(frame::Body::End(Goodbye::Done.into())).await.unwrap();
    // Both have arrived when it is answered; a connection that is dropped may take them along.
    while peer.hear().await.is_some() {}
    let fleet = rusqlite::Connection::open(server.home.path().join("server/fleet.sqlite")).unwrap();
    wait_until("what it has added is written down", || {
        let sql = "SELECT bytes_new FROM profiles WHERE sequence = 1";
        fleet.query_row(sql, [], |row| row.get::<_, i64>(0)).is_ok_and(|bytes| bytes == 3 << 20)
    });
    assert_eq!(server.home.json(&["snapshots", "--client", "bad"]).as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_lies_and_bombs_is_restored_but_for_what_is_named() {
    let (server, dir) = (TestServer::with_policy(&TestServer::due_policy()), tempfile::tempdir().unwrap());
    let bad = server.client("bad", &[dir.path()]);
    let (mut peer, welcome, mut forge) = granted(&bad).await;
    let zeros = forge.chunk(vec![0; 8 << 20]);
    let chunk = zeros.id().unwrap();
    // 800 GB in a few kilobytes.
    let mut built = Vec::new();
    let list = flist::build(&vec![zeros; 100_000], &forge.key, |_, object| built.push(object));
    forge.objects.extend(built);
    let outside = dir.path().join("canary");
    let link = Body::Symlink(outside.as_os_str().as_encoded_bytes().to_vec());
    let lies = ["a list without end", "a member of a chunk", "a short chunk", "folder that is a chunk"];
    let entries = vec![
        entry(lies[0], file(20 << 20, Content::Flist(list))),
        entry(lies[1], file(5, Content::Member { bundle: chunk, member: 0 })),
        entry(lies[2], file(5, Content::Chunks(vec![Piece::Data { id: chunk, len: 5 }]))),
        entry(lies[3], Body::Directory { node: chunk, totals: Totals { files: 7, dirs: 7, bytes: 7 } }),
        entry("honest", file(6, Content::Inline(b"honest".to_vec()))),
        entry("large", file(40 << 20, Content::Chunks(vec![zeros; 5]))),
        entry("link", link),
    ];
    let root = forge.root(entries);
    commit(&bad, &mut peer, &welcome, &forge, root).await;
    committed(&mut peer).await;
    drop(peer);
    tokio::task::block_in_place(|| {
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(&outside, "canary").unwrap();
        for overwrite in ["always", "if-changed"] {
            let args =
                ["restore", "latest", "-t", out.to_str().unwrap(), "--overwrite", overwrite, "--verify"];
            let (done, peak) = measured(bad.command(&args));
            let done = done.expect(3);
            for lie in lies {
                assert!(done.err.contains(&format!("out/{lie}: ")), "{lie}: {}", done.err);
            }
            assert!(done.err.contains(&format!("object {chunk}")), "{}", done.err);
            assert!(peak < 200.0, "{peak} MiB");
            let names: Vec<_> =
                trees::names(&out).into_iter().map(|name| name.into_string().unwrap()).collect();
            assert_eq!(names, [lies[3], "honest", "large", "link"]);
            assert_eq!(fs::read_to_string(&outside).unwrap(), "canary");
        }
        assert_eq!(fs::read_to_string(out.join("honest")).unwrap(), "honest");
        assert_eq!(fs::metadata(out.join("large")).unwrap().len(), 40 << 20);
        let dump = bad.run(&["dump", "latest:/a list without end"]).expect(1);
        assert!(dump.err.contains("its entry says"), "{}", dump.err);
        assert!(dump.out.len() <= 20 << 20);
    });
}

/// No reader ever comes to see them: the server looks at every name before it keeps a folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_names_that_are_none_is_not_taken_in() {
    let (server, dir) = (TestServer::with_policy(&TestServer::due_policy()), tempfile::tempdir().unwrap());
    let bad = server.client("bad", &[dir.path()]);
    let planted = |name: &str| entry(name, file(8, Content::Inline(b"intruder".to_vec())));
    let long = "x".repeat(256);
    for names in [
        &[".."][..],
        &["."],
        &[""],
        &["a/b"],
        &["../canary"],
        &["a\0b"],
        &[&long],
        &["same", "same"],
        &["z", "a"],
    ] {
        let (mut peer, _, mut forge) = granted(&bad).await;
        forge.root(names.iter().copied().map(planted).collect());
        let mut stream = peer.streams.open().await.unwrap();
        let objects = forge.packed();
        for object in &objects {
            // It may have hung up by then.
            let _ = stream.send(object).await;
        }
        let end = loop {
            match peer.hear().await {
                Some(frame::Body::End(end)) => break end,
                Some(_) => {}
                None => panic!("{names:?}: it hung up without a word"),
            }
        };
        let is_named =
            objects.iter().any(|object| end.text.contains(&format!("object {}", object.header.id)));
        assert!(end.code == end::DATA && is_named, "{names:?}: {end:?}");
    }
    tokio::task::block_in_place(|| assert_eq!(bad.json(&["snapshots"]), serde_json::json!([])));
}

/// An id is a hash of what is in the object, ids that it refers to included: what refers to itself cannot be named, and what
/// refers to something that comes later is refused.
#[tokio::test(flavor = "multi_thread")]
async fn what_refers_in_a_circle_is_not_taken_in() {
    let (server, dir) = (TestServer::with_policy(&TestServer::due_policy()), tempfile::tempdir().unwrap());
    let bad = server.client("bad", &[dir.path()]);
    let folder = |node| entry("again", Body::Directory { node, totals: Totals::default() });
    for is_named_after_itself in [false, true] {
        let (mut peer, _, mut forge) = granted(&bad).await;
        let later = ObjectId([7; 32]);
        forge.root(vec![folder(later)]);
        let mut object = forge.packed().into_iter().next().unwrap();
        assert_eq!(object.header.references, [Reference::whole(later)]);
        if is_named_after_itself {
            object.header.id = later;
        }
        let mut stream = peer.streams.open().await.unwrap();
        stream.send(&object).await.unwrap();
        let end = loop {
            match peer.hear().await {
                Some(frame::Body::End(end)) => break end,
                Some(_) => {}
                None => panic!("it hung up without a word"),
            }
        };
        let code = if is_named_after_itself { end::DATA } else { end::STALE };
        assert!(end.code == code && end.text.contains(&format!("object {later}")), "{end:?}");
    }
    tokio::task::block_in_place(|| assert_eq!(bad.json(&["snapshots"]), serde_json::json!([])));
}
