//! Four small vaults with every kind of file and record in them, as few bytes as may be: what [`crate::flips`] damages.
//!
//! The first has two snapshots, a pin, one that was forgotten, what waits to be reclaimed, and an export of the server. The second is the same at a
//! moment in which reclaim was ended while it moved things, beside an upload: its journal and an open pack are there. The third
//! is the first, in which a repair has put something aside, while one more snapshot is in SQLite's log only. The fourth is the
//! first, in which what was lost has come back, in the moment before the index says so. [`kinds`] says what must be there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use backhaul_object::bundle::BundleBuilder;
use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::piece::Piece;
use backhaul_object::seal::{Packer, Unpacker, identify_content};
use backhaul_object::{Kind, Object, ObjectId, Reference, Sealed, flist, patch};
use backhaul_server::export::{Export, File, shelf};
use backhaul_store::check::Mending;
use backhaul_store::mark::{NIGHT, State};
use backhaul_store::reclaim::{Request, Step, Watch};
use backhaul_store::session::Commit;
use backhaul_store::vault::Marking;
use backhaul_store::{Ordinal, StoreError, Vault};
use backhaul_store::{reserve, revived};
use backhaul_tests::trees;
use bytes::Bytes;

use crate::local::{Failure, opened};

mod back;
pub mod kinds;

const ANA: ClientId = ClientId([1; 16]);
const BEA: ClientId = ClientId([2; 16]);
const KEY: [u8; 32] = [7; 32];

/// A vault at rest, and what is in it.
pub struct Golden {
    /// Where it is.
    pub home: PathBuf,
    /// Files that are damaged, below it.
    pub names: Vec<PathBuf>,
    /// What its snapshots are, with all their objects.
    pub holds: Vec<u8>,
    /// What the server was when it was exported, by the numbers of the exports.
    pub exports: BTreeMap<u64, String>,
    /// All files.
    files: Files,
}

impl Golden {
    /// Files that are not damaged by themselves; what is in `lock` is nothing.
    pub fn rest(&self) -> impl Iterator<Item = PathBuf> {
        let names = self.files.iter().map(|(name, _)| name);
        names.filter(|name| !self.names.contains(name) && !name.ends_with("lock")).cloned()
    }

    /// Writes a copy.
    pub fn lay(&self, to: &Path) {
        let _ = fs::remove_dir_all(to);
        let mut made = PathBuf::new();
        for (name, bytes) in &self.files {
            let place = to.join(name);
            let parent = place.parent().unwrap_or(to);
            if made != parent {
                fs::create_dir_all(parent).unwrap();
                parent.clone_into(&mut made);
            }
            fs::write(place, bytes).unwrap();
        }
        fs::create_dir_all(to.join("open")).unwrap();
    }
}

fn said(error: StoreError) -> Failure {
    error.to_string()
}

fn seal(object: Object) -> Sealed {
    let key = VaultKey::new(KEY);
    let nonce = [object.payload.len() as u8; 24];
    let packed = object.compress(&key.id_key(), &mut Packer::new(3).unwrap()).unwrap();
    packed.seal(&key.data_key(), nonce).unwrap()
}

fn object(kind: Kind, references: &[ObjectId], content: &[u8]) -> Sealed {
    let references = references.iter().map(|id| Reference::whole(*id)).collect();
    seal(Object { kind, references, provides: vec![], payload: Bytes::copy_from_slice(content) })
}

/// A chunk that is written as a difference to another, whose content is given: some of that, and words.
fn patched(base: &Sealed, content: &[u8]) -> Sealed {
    const WORDS: &[u8] = b"patched";
    let (key, mut writing) = (VaultKey::new(KEY), patch::Writing::default());
    let (copied, made) = (content.len() / 2, [&content[..content.len() / 2], WORDS].concat());
    writing.copy(0, 0, copied);
    writing.insert(WORDS);
    let (id, proof) = identify_content(&key.id_key(), &made);
    let (references, payload) =
        (vec![patch::base(base.header.id)], Bytes::from(writing.finish(1).0.encode()));
    let object = Object { kind: Kind::Patch, references, provides: vec![], payload };
    let packed = object.compress_as(id, proof, &mut Packer::new(3).unwrap()).unwrap();
    packed.seal(&key.data_key(), [made.len() as u8; 24]).unwrap()
}

/// The list of a file of one chunk.
fn list(chunk: &Sealed) -> Sealed {
    let (id, len) = (chunk.header.id, u64::from(chunk.header.plain_len));
    let mut lists = Vec::new();
    flist::build(&[Piece::Data { id, len }], &VaultKey::new(KEY).id_key(), |_, object| lists.push(object));
    seal(lists.remove(0))
}

/// A chunk, a bundle of two, a patch of the chunk with the list that leads to it, and two nodes above them: children first.
fn tree(version: u8) -> Vec<Sealed> {
    let mut noise = [0; 100];
    blake3::Hasher::new().update(&[version]).finalize_xof().fill(&mut noise);
    let mut builder = BundleBuilder::default();
    for content in [&b"one"[..], &noise[..5]] {
        let (id, proof) = identify_content(&VaultKey::new(KEY).id_key(), content);
        builder.push(id, proof, content);
    }
    let (chunk, bundle) = (object(Kind::Chunk, &[], &noise), seal(builder.finish()));
    let patch = patched(&chunk, &noise);
    let list = list(&patch);
    let node = object(Kind::Node, &[&chunk, &bundle, &list].map(|leaf| leaf.header.id), &noise[..20]);
    let root = object(Kind::Node, &[node.header.id], b"root");
    vec![chunk, bundle, patch, list, node, root]
}

fn back_up(vault: &Vault, sequence: u8) {
    let mut session = vault.begin(SessionId([sequence; 16]), ANA);
    let objects = tree(sequence);
    for sealed in &objects {
        session.append(sealed, &vault.resolve(&sealed.header.references).unwrap()).unwrap();
        // Between two of them everything is in a pack that is not sealed.
        session.flush().unwrap();
    }
    let root = objects.last().unwrap().header.id;
    let snap = object(Kind::Snap, &[root], &[sequence]);
    let edges = vault.resolve(&snap.header.references).unwrap();
    let (sequence, server_time) = (u64::from(sequence), 1_000 + u64::from(sequence));
    let commit = Commit { client_name: "ana", sequence, server_time, signature: vec![5; 70] };
    session.commit(&snap, &edges, commit).unwrap();
}

/// Ends reclaim at a step of it.
struct EndAt(Step);

impl Watch for EndAt {
    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        if step == self.0 { Err(StoreError::Poisoned) } else { Ok(()) }
    }
}

fn grown(root: &Path, id: VaultId, snapshots: u8) -> Vault {
    let vault = Vault::create(root, &Descriptor::managed(id), [1; 16]).unwrap();
    (1..=snapshots).for_each(|sequence| back_up(&vault, sequence));
    vault
}

/// Files with their names.
pub type Files = Vec<(PathBuf, Vec<u8>)>;

/// Files of the same names: of the first vault as it was two snapshots earlier, and of another vault.
pub fn others(dir: &Path) -> [Files; 2] {
    [("older", 9, 1), ("foreign", 8, 3)].map(|(name, id, snapshots)| {
        let root = dir.join(name);
        let vault = grown(&root, VaultId([id; 16]), snapshots);
        vault.mark(ANA, 1, Marking { state: State::Forgotten, now: 5, grace: 0, reason: "once" }).unwrap();
        vault.count_night(5 + NIGHT).unwrap();
        vault.reclaim(&Request { now: 5 + NIGHT, ..Request::default() }, &mut ()).unwrap();
        drop(vault);
        if name == "foreign" {
            export(&root, VaultId([id; 16]));
        }
        shrink(&root);
        read(&root)
    })
}

/// What a server puts beside its vault every night, as it does: of a small server.
fn export(root: &Path, vault: VaultId) {
    let file = |name: &str, content: &[u8]| File { name: name.to_owned(), content: content.to_vec() };
    let files = [file("config.toml", b"listen = \"0.0.0.0:4455\"\n"), file("tls/ca.key", &[7; 40])];
    let export = Export::seal((vault, 5_000, vec![6; 130]), &files, &VaultKey::new(KEY), [9; 24]).unwrap();
    shelf::put(root, &export.encode()).unwrap();
}

/// What the server was, by each export that is listed.
///
/// # Errors
/// One cannot be used.
pub fn exports(root: &Path) -> Result<BTreeMap<u64, String>, Failure> {
    let mut all = BTreeMap::new();
    for (number, path) in shelf::list(root).map_err(|error| error.to_string())? {
        let bytes = fs::read(&path).map_err(|error| error.to_string())?;
        let export = Export::decode(&bytes).map_err(|error| error.to_string())?;
        let files = export.open(&VaultKey::new(KEY)).map_err(|error| error.to_string())?;
        all.insert(number, format!("{:?} {files:?}", export.vault));
    }
    Ok(all)
}

fn read(root: &Path) -> Files {
    let within = |path: &PathBuf| path.strip_prefix(root).unwrap().to_path_buf();
    trees::files(root).iter().map(|path| (within(path), fs::read(path).unwrap())).collect()
}

/// Two nights of reclaim in a vault that may be damaged, as far as they go.
pub fn prune_twice(root: &Path) {
    // What is set aside would cost more than all else.
    fs::File::create(root.join("reserve")).and_then(|file| file.set_len(reserve::SIZE)).unwrap();
    let Ok(vault) = Vault::open(root) else { return };
    for night in 2..4 {
        let now = 5_000 + night * NIGHT;
        let request = Request { now, ..Request::default() };
        let _ = vault.count_night(now).and_then(|_| vault.reclaim(&request, &mut ()));
    }
}

/// Waits until all sidecars are made: that is done in its own time, under another name first.
fn wait_for_parity(root: &Path) {
    let names = |below: &str| {
        let all = trees::files(&root.join(below)).into_iter();
        all.map(|path| path.file_name().unwrap().to_owned()).collect::<Vec<_>>()
    };
    while names("parity") != names("packs") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// All vaults, below a directory.
///
/// # Panics
/// A kind of file or record is not in them.
pub fn make(dir: &Path) -> [Golden; 4] {
    let (living, first, second) = (dir.join("living"), dir.join("first"), dir.join("second"));
    let vault = grown(&living, VaultId([9; 16]), 3);
    let mark = |sequence, state, reason| {
        vault.mark(ANA, sequence, Marking { state, now: 5_000, grace: 0, reason }).unwrap();
    };
    mark(1, State::Pinned, "dear");
    mark(2, State::Forgotten, "old");
    vault.count_night(5_000 + NIGHT).unwrap();
    let request = Request { now: 5_000 + NIGHT, ..Request::default() };
    vault.reclaim(&request, &mut ()).unwrap();
    mark(3, State::Kept, "kept after all");
    wait_for_parity(&living);
    copy(&living, &first);
    export(&first, VaultId([9; 16]));
    let mut upload = vault.begin(SessionId([8; 16]), BEA);
    upload.append(&object(Kind::Chunk, &[], b"half of it"), &[]).unwrap();
    upload.flush().unwrap();
    let ended = vault.reclaim(&request, &mut EndAt(Step::Journalled));
    assert!(ended.is_err(), "reclaim had nothing to move");
    // While all of this is open.
    copy(&living, &second);
    drop((upload, vault));
    [&first, &second].iter().for_each(|home| shrink(home));
    let (third, fourth) = (logged(dir, &first), back::revived(dir, &first));
    let all = [(first, Of::Rest), (second, Of::Reclaim), (third, Of::Log), (fourth, Of::Revived)]
        .map(|(home, of)| golden(dir, home, of));
    kinds::assert_all(&all);
    all
}

/// A copy of a vault in which something was put aside, and what came last is in SQLite's log only.
fn logged(dir: &Path, first: &Path) -> PathBuf {
    let (busy, home) = (dir.join("busy"), dir.join("third"));
    copy(first, &busy);
    let one = trees::files(&busy.join("copies")).into_iter().find(|path| path.extension().is_some()).unwrap();
    fs::write(&one, b"worn").unwrap();
    let vault = Vault::open(&busy).unwrap();
    crate::mend::check(&vault, Mending::Mend).unwrap();
    drop(vault);
    let vault = Vault::open(&busy).unwrap();
    back_up(&vault, 4);
    wait_for_parity(&busy);
    copy(&busy, &home);
    drop(vault);
    settle(&home);
    home
}

/// Takes out of the copy of an open vault what is not needed, and whoever opens it makes anew.
fn settle(home: &Path) {
    for name in ["reserve", "catalog.sqlite-shm"] {
        let _ = fs::remove_file(home.join(name));
    }
}

/// Which files of a vault are damaged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Rest,
    Reclaim,
    Log,
    Revived,
}

fn golden(dir: &Path, home: PathBuf, of: Of) -> Golden {
    let probe = dir.join("probe");
    copy(&home, &probe);
    let holds = holds(&Vault::open(&probe).unwrap()).unwrap();
    // Sidecars are the larger part of all bytes, and alike: the smallest will do.
    let sidecars = trees::files(&home.join("parity"));
    let sidecar = sidecars.iter().min_by_key(|path| path.metadata().unwrap().len());
    let matters = |name: &PathBuf| match of {
        Of::Rest => {
            let is_one_of_many =
                name.starts_with("parity") && sidecar.is_some_and(|path| *path != home.join(name));
            !name.ends_with("lock") && !is_one_of_many
        }
        Of::Reclaim => {
            ["reclaim.journal", "condemned"].iter().any(|file| name.ends_with(file))
                || name.starts_with("open")
        }
        Of::Log => name.ends_with("catalog.sqlite-wal") || name.starts_with("quarantine"),
        Of::Revived => name.ends_with(revived::FILE),
    };
    let exports = exports(&home).unwrap();
    let files = read(&home);
    let names: Vec<PathBuf> = files.iter().map(|(name, _)| name.clone()).filter(matters).collect();
    Golden { names, holds, exports, home, files }
}

/// The catalog as SQLite writes it in its smallest pages: a good part of it would be empty.
fn shrink(home: &Path) {
    let _ = fs::remove_file(home.join("reserve"));
    let db = rusqlite::Connection::open(home.join("catalog.sqlite")).unwrap();
    db.pragma_update(None, "journal_mode", "DELETE").unwrap();
    db.pragma_update(None, "page_size", 512).unwrap();
    db.execute_batch("VACUUM").unwrap();
    drop(db);
}

/// A copy of a vault, without what is no file.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for path in trees::files(from).into_iter().filter(|path| !path.ends_with("reserve")) {
        let place = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(path, place).unwrap();
    }
    fs::create_dir_all(to.join("open")).unwrap();
}

/// Every snapshot with all that it refers to, opened, in words that do not depend on where things are; and what was said
/// about it.
///
/// # Errors
/// Something is not there, or not readable.
pub fn holds(vault: &Vault) -> Result<Vec<u8>, Failure> {
    let (key, mut unpacker, mut out) = (VaultKey::new(KEY), Unpacker::new().unwrap(), Vec::new());
    out.extend_from_slice(format!("{:?}", vault.marks().map_err(said)?).as_bytes());
    for row in vault.snapshots(None).map_err(said)? {
        out.extend_from_slice(format!("{row:?}").replace(&format!("{:?}", row.ordinal), "").as_bytes());
        let mut open: Vec<Ordinal> = vec![row.ordinal];
        while let Some(ordinal) = open.pop() {
            let sealed = vault.get(ordinal).map_err(said)?;
            let opened = opened(vault, &key, &sealed, &mut unpacker);
            let opened = opened.map_err(|why| format!("object {}: {why}", sealed.header.id))?;
            out.extend_from_slice(sealed.header.id.as_bytes());
            out.extend_from_slice(&opened.payload);
            for reference in &sealed.header.references {
                let to = vault.ordinal(&reference.id).map_err(said)?;
                let to = to.ok_or_else(|| format!("object {} is not there", reference.id))?;
                open.push(to);
            }
        }
    }
    Ok(out)
}
