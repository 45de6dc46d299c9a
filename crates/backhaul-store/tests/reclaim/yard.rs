//! A vault, sessions in it, and what tests know of it.

use std::path::{Path, PathBuf};

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::Packer;
use backhaul_object::{Kind, Object, ObjectId, Reference, Sealed};
use backhaul_store::catalog::SnapshotRow;
use backhaul_store::check::{self, Depth, Go, Mending, Selection};
use backhaul_store::mark::{NIGHT, State};
use backhaul_store::reclaim::{Report, Request, Step, Watch};
use backhaul_store::session::Commit;
use backhaul_store::vault::Marking;
use backhaul_store::{StoreError, Vault, WriteSession};
use bytes::Bytes;

pub const ANA: ClientId = ClientId([1; 16]);
pub const BEA: ClientId = ClientId([2; 16]);
/// When tests begin.
pub const NOW: u64 = 1_700_000_000;

pub struct Yard {
    dir: tempfile::TempDir,
    pub vault: Option<Vault>,
    sessions: u8,
    pub now: std::cell::Cell<u64>,
}

pub fn object(kind: Kind, references: &[ObjectId], content: &[u8]) -> Sealed {
    let key = VaultKey::new([7; 32]);
    let references = references.iter().map(|id| Reference::whole(*id)).collect();
    let object = Object { kind, references, provides: vec![], payload: Bytes::copy_from_slice(content) };
    let compressed = object.compress(&key.id_key(), &mut Packer::new(1).unwrap()).unwrap();
    compressed.seal(&key.data_key(), [3; 24]).unwrap()
}

/// A chunk of that many bytes, which do not compress, told apart by `seed`.
pub fn chunk(seed: u32, len: usize) -> Sealed {
    let mut content = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
    object(Kind::Chunk, &[], &content)
}

pub fn node(children: &[ObjectId], name: &str) -> Sealed {
    object(Kind::Node, children, name.as_bytes())
}

pub fn append(vault: &Vault, session: &mut WriteSession, sealed: &Sealed) -> ObjectId {
    let edges = vault.resolve(&sealed.header.references).unwrap();
    session.append(sealed, &edges).unwrap();
    sealed.header.id
}

pub fn commit(
    vault: &Vault,
    session: &mut WriteSession,
    client: ClientId,
    root: ObjectId,
) -> Result<SnapshotRow, StoreError> {
    let sequence = vault.last_sequence(client)? + 1;
    let snap = object(Kind::Snap, &[root], format!("{client} {sequence}").as_bytes());
    let edges = vault.resolve(&snap.header.references)?;
    let commit = Commit { client_name: "name", sequence, server_time: NOW, signature: vec![5; 70] };
    session.commit(&snap, &edges, commit)
}

impl Yard {
    pub fn new() -> Self {
        // Where there is one, a file system in memory: what is tested is the order of things, not the disk.
        let shm = Path::new("/dev/shm");
        let dir = match shm.is_dir() {
            true => tempfile::tempdir_in(shm).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let root = dir.path().join("vault");
        let vault = Vault::create(&root, &Descriptor::managed(VaultId([9; 16])), [1; 16]).unwrap();
        Self { dir, vault: Some(vault), sessions: 0, now: std::cell::Cell::new(NOW) }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("vault")
    }

    pub fn vault(&self) -> &Vault {
        self.vault.as_ref().unwrap()
    }

    pub fn begin(&mut self, client: ClientId) -> WriteSession {
        self.sessions += 1;
        self.vault().begin(SessionId([self.sessions; 16]), client)
    }

    /// A snapshot of chunks told apart by numbers, under one node.
    pub fn snapshot(&mut self, client: ClientId, chunks: std::ops::Range<u32>) -> SnapshotRow {
        let vault = self.vault().clone();
        let mut session = self.begin(client);
        let ids: Vec<ObjectId> =
            chunks.clone().map(|seed| append(&vault, &mut session, &chunk(seed, 5_000))).collect();
        let root = append(&vault, &mut session, &node(&ids, &format!("{chunks:?}")));
        commit(&vault, &mut session, client, root).unwrap()
    }

    pub fn forget(&self, row: &SnapshotRow) {
        let marking = Marking { state: State::Forgotten, now: self.now.get(), grace: 0, reason: "test" };
        self.vault().mark(row.client, row.sequence, marking).unwrap();
    }

    /// A pass of reclaim, in the night after.
    pub fn reclaim(&self) -> Report {
        self.reclaim_watched(&mut ()).unwrap()
    }

    pub fn reclaim_watched(&self, watch: &mut dyn Watch) -> Result<Report, StoreError> {
        self.now.set(self.now.get() + NIGHT);
        self.vault().count_night(self.now.get()).unwrap();
        self.vault().reclaim(&Request { now: self.now.get(), ..Request::default() }, watch)
    }

    /// What a pass would do.
    pub fn rehearse(&self) -> Report {
        let request = Request { now: self.now.get() + NIGHT, dry_run: true, ..Request::default() };
        self.vault().reclaim(&request, &mut ()).unwrap()
    }

    pub fn has(&self, id: &ObjectId) -> bool {
        match self.vault().ordinal(id).unwrap() {
            Some(ordinal) => {
                assert_eq!(self.vault().get(ordinal).unwrap().header.id, *id);
                true
            }
            None => false,
        }
    }

    /// Everything that any snapshot reaches can be read, and `check` finds nothing wrong.
    pub fn assert_whole(&self) {
        let vault = self.vault();
        for row in vault.snapshots(None).unwrap() {
            let mut open = vec![row.id];
            while let Some(id) = open.pop() {
                let ordinal = vault.ordinal(&id).unwrap();
                let ordinal = ordinal.unwrap_or_else(|| panic!("{id} of snapshot {} is gone", row.sequence));
                let sealed = vault.get(ordinal).unwrap();
                assert_eq!(sealed.header.id, id);
                open.extend(sealed.header.references.iter().map(|reference| reference.id));
            }
        }
        let depth = Depth::ReadData(Selection::All);
        let request = check::Request { depth, mending: Mending::Look, now: NOW };
        let report = vault.check(&request, None, &|_| Go::On).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
    }

    pub fn reopen(&mut self) {
        self.vault = None;
        self.vault = Some(Vault::open(&self.root()).unwrap());
    }

    /// What is on the disk now is all that is left: as after a kill.
    pub fn crash(&mut self) {
        let copy = self.dir.path().join("copy");
        // Parity is being made beside, under names that come and go.
        let tried = (0..50).any(|_| {
            let _ = std::fs::remove_dir_all(&copy);
            std::process::Command::new("cp")
                .arg("-a")
                .arg(self.root())
                .arg(&copy)
                .output()
                .unwrap()
                .status
                .success()
        });
        assert!(tried, "it could not be copied");
        self.vault = None;
        std::fs::remove_dir_all(self.root()).unwrap();
        std::fs::rename(copy, self.root()).unwrap();
        self.vault = Some(Vault::open(&self.root()).unwrap());
    }

    /// Files of the vault below a folder.
    pub fn files(&self, below: &str) -> Vec<PathBuf> {
        let (mut files, mut open) = (Vec::new(), vec![self.root().join(below)]);
        while let Some(path) = open.pop() {
            for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if path.is_dir() { open.push(path) } else { files.push(path) }
            }
        }
        files
    }

    /// Bytes of all packs on the disk.
    pub fn bytes(&self) -> u64 {
        self.files("packs").iter().map(|path| path.metadata().unwrap().len()).sum()
    }
}

/// Ends a pass at the n-th step.
pub struct EndAt {
    pub left: usize,
    pub steps: Vec<Step>,
}

impl Watch for EndAt {
    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        self.steps.push(step);
        match self.left {
            0 => Err(StoreError::Interrupted),
            _ => {
                self.left -= 1;
                Ok(())
            }
        }
    }
}
