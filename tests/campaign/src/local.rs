//! A client without a network: the real walk, the real vault, and what a server's session does between them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backhaul_archive::backup::joints::{Joint, Joints};
use backhaul_archive::backup::{BackupRequest, Patches, Saved, VaultParameters, backup, excludes};
use backhaul_archive::restore::{RestoreRequest, restore};
use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::{Packer, Unpacker};
use backhaul_object::snapshot::Snapshot;
use backhaul_object::source::{
    Answer, Answers, ObjectSink, ObjectSource, Query, Signatures, Spot, TransferError,
};
use backhaul_object::{Compressed, FormatError, Kind, Object, ObjectId, Reference, Sealed, patch};
use backhaul_store::catalog::SnapshotRow;
use backhaul_store::check::{Depth, Go, Mending, Report, Request, Round, Selection};
use backhaul_store::index::Place;
use backhaul_store::mark::{NIGHT, State};
use backhaul_store::reclaim::{self, Watch};
use backhaul_store::session::Commit;
use backhaul_store::vault::Marking;
use backhaul_store::{StoreError, Vault, WriteSession};

use crate::stage::Stage;

/// When snapshots are forgotten, in seconds since 1970.
const FORGOTTEN_AT: u64 = 1_000_000;

/// A pass of reclaim that nobody looks at.
struct Unwatched;

impl Watch for Unwatched {}

/// Why something did not work, for people.
pub type Failure = String;

pub(crate) fn said(error: impl ToString) -> Failure {
    error.to_string()
}

pub(crate) fn key() -> VaultKey {
    VaultKey::new([7; 32])
}

/// Something that happens to a vault while something else does.
pub type Meanwhile = fn(&Local) -> Result<(), Failure>;

/// An open vault with its key.
pub struct Local {
    /// The vault.
    pub vault: Vault,
    key: VaultKey,
}

impl Local {
    /// Makes a vault.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(dir: &Path) -> Result<Self, StoreError> {
        let vault = Vault::create(dir, &Descriptor::managed(VaultId([9; 16])), [1; 16])?;
        Ok(Self { vault: crate::mend::keyed(vault, &key()), key: key() })
    }

    /// Opens a vault.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, key())
    }

    /// Opens a vault that somebody else made.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_with(dir: &Path, key: VaultKey) -> Result<Self, StoreError> {
        Ok(Self { vault: crate::mend::keyed(Vault::open(dir)?, &key), key })
    }

    /// Begins to write for a client.
    pub fn begin(&self, client: ClientId) -> Upload<'_> {
        // Sessions differ by what is there when they begin.
        let mut session = [0; 16];
        session[..8].copy_from_slice(&self.vault.last_sequence(client).unwrap_or(0).to_le_bytes());
        session[8] = client.0[0];
        let writing = self.vault.begin(SessionId(session), client);
        Upload {
            local: self,
            client,
            writing: Mutex::new(writing),
            puts: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            failure: Mutex::new(None),
            breaks_after: None,
            meanwhile: None,
            told: None,
            state: None,
            lies_at: None,
            patches: AtomicU64::new(0),
        }
    }

    /// Saves the next version of a client's tree, whole.
    ///
    /// # Errors
    /// There is no snapshot.
    pub fn back_up(&self, stage: &Stage, client: ClientId) -> Result<SnapshotRow, Failure> {
        self.back_up_as(stage, client, self.next(client)?)
    }

    /// The same under a number, which says what there is to be saved.
    ///
    /// # Errors
    /// The vault refused.
    pub fn back_up_as(&self, stage: &Stage, client: ClientId, sequence: u64) -> Result<SnapshotRow, Failure> {
        let mut upload = self.begin(client);
        upload.lies_at = Some(stage.tree(client, sequence));
        let saved = upload.save(&stage.name(client, sequence))?;
        upload.commit(&saved, sequence)
    }

    /// The number that a client's next snapshot gets.
    ///
    /// # Errors
    /// The vault cannot tell.
    pub fn next(&self, client: ClientId) -> Result<u64, Failure> {
        Ok(self.vault.last_sequence(client).map_err(said)? + 1)
    }

    /// Restores a tree, by its name in a snapshot, into a folder; all or an error.
    ///
    /// # Errors
    /// What could not be restored.
    pub fn restore(&self, tree: &Path, row: &SnapshotRow, target: &Path) -> Result<(), Failure> {
        let snapshot = self.read(&[row.id]).map_err(said)?;
        let snapshot = Snapshot::decode(&snapshot[0]).map_err(said)?;
        let from = tree.as_os_str().as_encoded_bytes();
        let done = restore(self, snapshot.root, Some(from), &RestoreRequest::to(target.to_path_buf()));
        match done.map_err(said)?.errors.first() {
            Some((path, why)) => Err(format!("{}: {why}", path.display())),
            None => Ok(()),
        }
    }

    /// Forgets a snapshot for good: the next pass of [`Local::prune`] may take it.
    ///
    /// # Errors
    /// The vault refused.
    pub fn forget(&self, client: ClientId, sequence: u64) -> Result<(), Failure> {
        let marking = Marking { state: State::Forgotten, now: FORGOTTEN_AT, grace: 0, reason: "campaign" };
        self.vault.mark(client, sequence, marking).map(drop).map_err(said)
    }

    /// One pass of reclaim, a night after everything was forgotten.
    ///
    /// # Errors
    /// The vault refused.
    pub fn prune(&self) -> Result<(), Failure> {
        self.prune_counted().map(drop)
    }

    /// The same; of how many packs what is needed was written anew.
    ///
    /// # Errors
    /// The vault refused.
    pub fn prune_counted(&self) -> Result<u64, Failure> {
        let now = FORGOTTEN_AT + 2 * NIGHT;
        self.vault.count_night(now).map_err(said)?;
        let request = reclaim::Request { now, ..reclaim::Request::default() };
        self.vault.reclaim(&request, &mut Unwatched).map(|report| report.compacted).map_err(said)
    }

    /// The scrub: each pack by itself, with the small files, and never the index.
    ///
    /// # Errors
    /// The vault refused.
    pub fn scrub(&self) -> Result<(), Failure> {
        let (mut seen, now) = (BTreeSet::new(), 1 << 40);
        loop {
            let turn = self.vault.scrub_turn(1, now).map_err(said)?;
            let Some(turn) = turn.filter(|turn| seen.insert(turn.pack)) else { return Ok(()) };
            self.vault.scrub(&turn.pack, Round::PackAndPapers, now, &|_| Go::On).map_err(said)?;
        }
    }

    /// Reads every byte and looks into every object; with leave to mend, makes good what is damaged.
    ///
    /// # Errors
    /// The check could not be made.
    pub fn check(&self, mending: Mending) -> Result<Report, Failure> {
        let mut unpacker = Unpacker::new().map_err(said)?;
        let mut inspect =
            |sealed: &Sealed| opened(&self.vault, &self.key, sealed, &mut unpacker).map(drop).map_err(said);
        let request = Request { depth: Depth::ReadData(Selection::All), mending, now: 5_000 };
        self.vault.check(&request, Some(&mut inspect), &|_| Go::On).map_err(said)
    }

    fn one(&self, id: ObjectId) -> Result<Object, TransferError> {
        let refused = |error: StoreError| TransferError::Refused(error.to_string());
        let ordinal = self.vault.ordinal(&id).map_err(refused)?.ok_or(TransferError::NotFound(id))?;
        let sealed = self.vault.get(ordinal).map_err(refused)?;
        let opened = Unpacker::new().and_then(|mut room| opened(&self.vault, &self.key, &sealed, &mut room));
        opened.map_err(|why| TransferError::Damaged { id, why })
    }
}

/// An object, opened and hashed; a patch is made into its chunk.
///
/// # Errors
/// It is not what its header says, or a base of it cannot be had.
pub fn opened(
    vault: &Vault,
    key: &VaultKey,
    sealed: &Sealed,
    unpacker: &mut Unpacker,
) -> Result<Object, FormatError> {
    let (object, id_key) = (sealed.unseal(&key.data_key())?, key.id_key());
    if object.header.kind != Kind::Patch {
        return object.open(&id_key, unpacker);
    }
    patch::rebuild(&object, &id_key, unpacker, &mut |base: &Reference, unpacker| {
        let there = vault.ordinal(&base.id).ok().flatten();
        let there = there.and_then(|ordinal| vault.get(ordinal).ok());
        let there = there.ok_or(FormatError::Invalid("a base that is not there"))?;
        match there.header.kind {
            Kind::Patch => Err(FormatError::Invalid("a base that is not whole")),
            _ => patch::substance(&there.unseal(&key.data_key())?.open(&id_key, unpacker)?, base),
        }
    })
}

impl ObjectSource for Local {
    fn read(&self, ids: &[ObjectId]) -> Result<Vec<Object>, TransferError> {
        ids.iter().map(|id| self.one(*id)).collect()
    }
}

/// One run of a client.
pub struct Upload<'a> {
    local: &'a Local,
    client: ClientId,
    writing: Mutex<WriteSession>,
    puts: AtomicU64,
    durable: AtomicU64,
    failure: Mutex<Option<TransferError>>,
    /// What happens before each object is stored.
    pub meanwhile: Option<Meanwhile>,
    /// What happens whenever it was told what is there.
    pub told: Option<Meanwhile>,
    /// Objects after which the line is cut.
    pub breaks_after: Option<u64>,
    /// Where the client keeps what it knows; with that, it sends patches.
    pub state: Option<PathBuf>,
    /// Where the tree is read, if that is not what it is called.
    pub lies_at: Option<PathBuf>,
    patches: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upload<'_> {
    /// Walks a tree and uploads what the vault lacks.
    ///
    /// # Errors
    /// The session is over, or a file could not be read.
    pub fn save(&self, tree: &Path) -> Result<Saved, Failure> {
        let request = BackupRequest {
            paths: vec![tree.to_path_buf()],
            exclude: excludes::Excludes::default(),
            skip: vec![],
            joints: self.joints(tree).map_err(said)?,
            one_file_system: false,
            state: self.state.as_deref(),
            // Later than every stamp: nothing changes while it is read.
            now: &|| i64::MAX / 2,
            progress: Arc::default(),
        };
        let parameters = VaultParameters {
            descriptor: self.local.vault.descriptor().clone(),
            id_key: self.local.key.id_key(),
            chunker_key: self.local.key.chunker_key(),
            generation: self.local.vault.generation_for(self.client).map_err(said)?,
            patches: if self.state.is_some() { Patches::Taken } else { Patches::Refused },
        };
        let saved = backup(&request, &parameters, self).map_err(said)?;
        match saved.figures.errors.first() {
            Some((path, why)) => Err(format!("{}: {why}", path.display())),
            None => Ok(saved),
        }
    }

    fn joints(&self, name: &Path) -> std::io::Result<Joints> {
        let Some(lies_at) = self.lies_at.as_deref().filter(|lies_at| *lies_at != name) else {
            return Ok(Joints::default());
        };
        let root = Arc::new(std::fs::File::open("/")?.into());
        let below = lies_at.strip_prefix("/").unwrap_or(lies_at).to_path_buf();
        Ok(Joints::new(vec![Joint { path: name.to_path_buf(), root, below, volume: None }]))
    }

    /// How many chunks were sent as differences to others.
    pub fn patches(&self) -> u64 {
        self.patches.load(Ordering::Relaxed)
    }

    /// Makes the snapshot exist.
    ///
    /// # Errors
    /// There is none.
    pub fn commit(self, saved: &Saved, sequence: u64) -> Result<SnapshotRow, Failure> {
        let local = self.local;
        let before = local.vault.snapshots(Some(self.client)).map_err(said)?;
        let snapshot = Snapshot {
            vault: local.vault.descriptor().vault,
            client: self.client,
            sequence,
            previous: before.last().map(|row| row.id),
            root: saved.root,
            client_time: 1_000 + sequence,
            paths: vec![],
            tags: vec![],
            totals: saved.totals,
            errors: 0,
            not_kept: vec![],
        };
        let mut packer = Packer::new(1).map_err(said)?;
        let snapshot = snapshot.encode().compress(&local.key.id_key(), &mut packer).map_err(said)?;
        let sealed = self.seal(snapshot).map_err(said)?;
        let edges = local.vault.resolve(&sealed.header.references).map_err(said)?;
        let client_name = ["ana", "bea", "writer"][usize::from(self.client.0[0]) - 1];
        let commit = Commit { client_name, sequence, server_time: 1_000 + sequence, signature: vec![5; 70] };
        lock(&self.writing).commit(&sealed, &edges, commit).map_err(said)
    }

    fn seal(&self, object: Compressed) -> Result<Sealed, TransferError> {
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&object.header.id.as_bytes()[..24]);
        let id = object.header.id;
        object.seal(&self.local.key.data_key(), nonce).map_err(|why| TransferError::Damaged { id, why })
    }

    fn store(&self, object: Compressed) -> Result<u64, TransferError> {
        let refused = |error: StoreError| TransferError::Refused(error.to_string());
        let sealed = self.seal(object)?;
        let edges = self.local.vault.resolve(&sealed.header.references).map_err(refused)?;
        let mut writing = lock(&self.writing);
        writing.append(&sealed, &edges).map_err(refused)?;
        self.patches.fetch_add(u64::from(sealed.header.kind == Kind::Patch), Ordering::Relaxed);
        let puts = self.puts.fetch_add(1, Ordering::Relaxed) + 1;
        // A server makes what arrives durable every few seconds: here after each object, so that more can be cut.
        writing.flush().map_err(refused)?;
        self.durable.store(puts, Ordering::Relaxed);
        Ok(puts)
    }

    fn answer(&self, query: &Query) -> Result<Answer, StoreError> {
        let hits = self.local.vault.find(query.id.prefix())?;
        let Some(hit) = hits.iter().find(|hit| hit.id == query.id.short()) else { return Ok(Answer::Want) };
        let (Place::Object(ordinal) | Place::Member { bundle: ordinal, .. }) = hit.place;
        // What is about to go stays, now that somebody relies on it; what is gone is wanted.
        if !self.local.vault.claim(ordinal)? {
            return Ok(Answer::Want);
        }
        Ok(match hit.place {
            Place::Object(_) => Answer::Have,
            Place::Member { bundle_id, member, .. } => Answer::Member { bundle: bundle_id, member },
        })
    }
}

impl ObjectSink for Upload<'_> {
    fn ask(&self, queries: Vec<Query>) -> Result<Answers, TransferError> {
        let answers: Result<Vec<Answer>, StoreError> =
            queries.iter().map(|query| self.answer(query)).collect();
        let answers = answers.map_err(|error| TransferError::Refused(error.to_string()))?;
        if let Some(Err(why)) = self.told.map(|happens| happens(self.local)) {
            return Err(TransferError::Refused(why));
        }
        let (send, receive) = channel();
        let _ = send.send(answers);
        Ok(receive)
    }

    fn sign(&self, _: Vec<Spot>) -> Signatures {
        channel().1
    }

    fn put(&self, object: Compressed) -> Result<u64, TransferError> {
        if self.breaks_after.is_some_and(|most| self.puts.load(Ordering::Relaxed) >= most) {
            return Err(TransferError::Lost("cut".to_owned()));
        }
        if let Some(Err(why)) = self.meanwhile.map(|happens| happens(self.local)) {
            return Err(TransferError::Refused(why));
        }
        match self.store(object) {
            Err(error) => {
                *lock(&self.failure) = Some(error.clone());
                Err(error)
            }
            stored => stored,
        }
    }

    fn durable(&self) -> u64 {
        self.durable.load(Ordering::Relaxed)
    }

    fn failure(&self) -> Option<TransferError> {
        lock(&self.failure).clone()
    }
}
