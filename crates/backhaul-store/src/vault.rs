//! The façade: one vault, open in one process, shared by its sessions.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, PackId, Proof, SessionId};
use backhaul_object::small_file::summed;
use backhaul_object::{ObjectId, Reference};
use rustix::fs::FlockOperation;

use crate::atomic::AtomicFile;
use crate::blobs::{Blobs, LocalBlobs};
use crate::catalog::{Catalog, PackRow, Proven, SnapshotRow, Upload};
use crate::check::Verify;
use crate::error::{Doing, StoreError};
use crate::index::{Edge, Hit, Index, Ordinal};
use crate::parity::ParityWorker;
use crate::reclaim::fence::Fence;
use crate::session::WriteSession;
use crate::writer::PackWriter;

mod flush;
mod foresee;
mod leftovers;
pub(crate) mod manifests;
mod marks;
mod open;
mod reading;

pub(crate) use manifests::{Pair, row};
pub(crate) use marks::counted;
pub use marks::{Marking, hide_forgotten};
pub(crate) use open::{decode_descriptor, read_descriptor};

pub(crate) const DESCRIPTOR_FILE: &str = "vault.desc";
pub(crate) const DESCRIPTOR_COPY: &str = "copies/vault.desc";
/// How often, and how long apart, a lock that somebody holds is tried.
const LOCK_TRIES: u8 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// An open vault; clones share it.
#[derive(Clone)]
pub struct Vault {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    pub(crate) descriptor: Descriptor,
    pub(crate) generation: [u8; 16],
    pub(crate) blobs: Arc<dyn Blobs>,
    /// Makes the sidecars of packs.
    pub(crate) parity: ParityWorker,
    /// Packs being written, always on a local disk.
    pub(crate) spool: LocalBlobs,
    pub(crate) state: Mutex<State>,
    /// Held by whoever mends or moves what is stored.
    pub(crate) upkeep: Mutex<()>,
    /// Held by who takes it next.
    pub(crate) upkeep_next: Mutex<()>,
    /// Held by the one who reclaims.
    pub(crate) reclaiming: Mutex<()>,
    /// Of who has the key.
    pub(crate) verify: OnceLock<Box<Verify>>,
    _lock: File,
}

pub(crate) struct State {
    pub(crate) catalog: Catalog,
    pub(crate) index: Index,
    pub(crate) packs: HashMap<u32, PackRow>,
    pub(crate) writers: HashMap<u32, Writing>,
    /// Rows of packs that are durable and not yet in the catalog, or not yet in their place.
    pub(crate) pending: BTreeMap<u32, PackRow>,
    pub(crate) proven: Vec<Proven>,
    pub(crate) fence: Fence,
    /// Sessions whose objects no snapshot has yet.
    pub(crate) uploads: BTreeMap<SessionId, Upload>,
    pub(crate) next_pack: u32,
    /// How often repair has given objects other places: whoever has planned by the old ones must plan anew.
    pub(crate) places_given: u64,
    /// After a failed sync nobody knows what is on disk: writing ends until the vault is opened again.
    pub(crate) poisoned: bool,
}

/// A pack that is not sealed yet.
pub(crate) struct Writing {
    pub(crate) writer: PackWriter,
    pub(crate) dirty: bool,
    /// No more records: to be sealed at the next flush.
    pub(crate) complete: bool,
}

/// Figures of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Objects, without those lost.
    pub objects: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of packs.
    pub bytes_on_disk: u64,
    /// Snapshots.
    pub snapshots: u64,
}

/// The blob name of a sealed pack.
pub(crate) fn pack_blob(name: &PackId) -> String {
    let hex = name.to_string();
    format!("packs/{}/{hex}", &hex[..2])
}

/// The descriptor's file.
pub(crate) fn descriptor_bytes(descriptor: &Descriptor) -> Vec<u8> {
    summed([&b"BHVD"[..], &descriptor.encode()].concat())
}

/// The spool name of a pack being written.
pub(crate) fn open_name(number: u32) -> String {
    format!("open/{number}.pack")
}

/// Takes the lock file of a directory, for as long as the returned file lives.
///
/// # Errors
/// [`StoreError::Busy`] with the holder's process id.
pub fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).doing("open", &path)?;
    // A process that was killed holds its lock until the kernel has torn it down: a moment is given for that.
    let taken = || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    let got = (0..LOCK_TRIES).any(|attempt| {
        std::thread::sleep(LOCK_PAUSE * u32::from(attempt > 0));
        taken()
    });
    if !got {
        let mut pid = String::new();
        file.read_to_string(&mut pid).doing("read", &path)?;
        return Err(StoreError::Busy { path: dir.to_path_buf(), pid: pid.trim().to_owned() });
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(pid.as_bytes()))
        .doing("write", &path)?;
    Ok(file)
}

impl Vault {
    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.shared.root
    }

    /// Makes a vault in an absent or empty directory.
    ///
    /// # Errors
    /// The directory holds something, or cannot be written.
    pub fn create(root: &Path, descriptor: &Descriptor, generation: [u8; 16]) -> Result<Self, StoreError> {
        fs::create_dir_all(root).doing("create", root)?;
        if fs::read_dir(root).doing("list", root)?.next().is_some() {
            let source = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
            return Err(StoreError::Io { doing: "make a vault in", path: root.to_path_buf(), source });
        }
        for directory in ["packs", "open", "snaps", "index"] {
            let path = root.join(directory);
            fs::create_dir(&path).doing("create", &path)?;
        }
        Catalog::open(&root.join("catalog.sqlite"))?.initialise(&generation, &descriptor.vault)?;
        // The file in its place comes last: it is what makes this a vault.
        for name in [DESCRIPTOR_COPY, DESCRIPTOR_FILE] {
            let path = root.join(name);
            let written = AtomicFile::new(&path).and_then(|file| file.commit(&descriptor_bytes(descriptor)));
            written.doing("write", &path)?;
        }
        Self::open(root)
    }

    /// Opens a vault, and finishes what a crash left undone.
    ///
    /// # Errors
    /// No vault there, in use by another process, or damaged.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        open::open(root)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parameters every writer must share.
    pub fn descriptor(&self) -> &Descriptor {
        &self.shared.descriptor
    }

    /// Changes when the index is rebuilt.
    pub fn generation(&self) -> [u8; 16] {
        self.shared.generation
    }

    /// What an agent's state must be of to count: changes when the index is rebuilt, and when something was lost that
    /// the client's snapshots need, so that its agent reads everything anew and sends what is wanted.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn generation_for(&self, client: ClientId) -> Result<[u8; 16], StoreError> {
        let losses = self.state().catalog.losses(client)?;
        if losses == 0 {
            return Ok(self.generation());
        }
        let hash = blake3::Hasher::new()
            .update(&self.generation())
            .update(client.as_bytes())
            .update(&losses.to_le_bytes())
            .finalize();
        let mut generation = [0; 16];
        generation.copy_from_slice(&hash.as_bytes()[..16]);
        Ok(generation)
    }

    /// Starts adding objects for a client.
    pub fn begin(&self, session: SessionId, client: ClientId) -> WriteSession {
        WriteSession::new(self.clone(), session, client)
    }

    /// Everything, object or bundle member, whose id begins with a prefix.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn find(&self, prefix: u64) -> Result<Vec<Hit>, StoreError> {
        self.state().index.find(prefix)
    }

    /// The number of an object.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn ordinal(&self, id: &ObjectId) -> Result<Option<Ordinal>, StoreError> {
        self.state().index.ordinal(id)
    }

    /// True when an object was there and was lost: nothing but what is whole by itself takes its number again.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn is_lost(&self, id: &ObjectId) -> Result<bool, StoreError> {
        Ok(self.state().index.lost_ordinal(id)?.is_some())
    }

    /// Which of these were there as objects of their own, and were lost.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn lost_among(&self, ids: &[(ObjectId, Proof)]) -> Result<Vec<usize>, StoreError> {
        let state = self.state();
        let mut lost = Vec::new();
        for (n, (id, _)) in ids.iter().enumerate() {
            if state.index.lost_ordinal(id)?.is_some() {
                lost.push(n);
            }
        }
        Ok(lost)
    }

    /// What an object refers to.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn edges(&self, ordinal: Ordinal) -> Result<Vec<Edge>, StoreError> {
        self.state().index.edges(ordinal)
    }

    /// Notes that a client has shown to possess something; durable with the next flush.
    pub fn note_proven(&self, client: ClientId, ordinal: Ordinal, member: Option<u16>) {
        self.state().proven.push(Proven { client, ordinal, member });
    }

    /// Turns references into edges, and claims what they lead to.
    ///
    /// # Errors
    /// [`StoreError::MissingReference`] names the first that is not there.
    pub fn resolve(&self, references: &[Reference]) -> Result<Vec<Edge>, StoreError> {
        let mut state = self.state();
        let one = |reference: &Reference| match state.index.ordinal(&reference.id)? {
            Some(to) if state.claim(to)? => Ok(Edge { to, members: reference.members.clone() }),
            _ => Err(StoreError::MissingReference(reference.id)),
        };
        references.iter().map(one).collect()
    }

    /// Committed snapshots by client and sequence; of one client or of all.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn snapshots(&self, client: Option<ClientId>) -> Result<Vec<SnapshotRow>, StoreError> {
        let state = self.state();
        match client {
            Some(client) => state.catalog.snapshots_of(client),
            None => state.catalog.snapshots(),
        }
    }

    /// The highest sequence number that a client's manifests, their copies or catalog rows have, readable or not: a number
    /// is never given twice, even where a manifest was lost.
    ///
    /// # Errors
    /// The backend cannot list, or the catalog cannot be read.
    pub fn last_sequence(&self, client: ClientId) -> Result<u64, StoreError> {
        let list = |folder: &str| self.shared.blobs.list(&format!("{folder}/{client}"));
        let (names, copies) = (list("snaps")?, list("copies")?);
        let number = |name: &String| {
            let file = name.rsplit('/').next()?;
            // A mark may be all that is left of a snapshot.
            file.strip_suffix(".snap").or(file.strip_suffix(".mark"))?.parse().ok()
        };
        let rows = self.snapshots(Some(client))?;
        let numbers =
            names.iter().chain(&copies).filter_map(number).chain(rows.iter().map(|row| row.sequence));
        Ok(numbers.max().unwrap_or(0))
    }

    /// Figures.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let state = self.state();
        Ok(Stats {
            objects: state.packs.values().map(|row| row.objects).sum(),
            packs: state.packs.len() as u64,
            bytes_on_disk: state.packs.values().map(|row| row.bytes).sum(),
            snapshots: state.catalog.snapshots()?.len() as u64,
        })
    }

    /// What the vault holds, in words that do not depend on how catalog and index came about: one line an
    /// object (number, id, pack, offset, length, references), one a snapshot.
    ///
    /// # Errors
    /// Catalog or index cannot be read.
    pub fn dump(&self, out: &mut dyn Write) -> Result<(), StoreError> {
        let state = self.state();
        let write = |result: std::io::Result<()>| result.doing("write", Path::new("the dump"));
        for number in 0..state.index.objects() {
            let ordinal = Ordinal(number);
            let at = state.index.location(ordinal)?;
            if at.len == 0 {
                continue;
            }
            let pack = state.packs.get(&at.pack).and_then(|row| row.name);
            let pack = pack.map_or("open".to_owned(), |name| name.to_string());
            let id = state.index.short(ordinal)?;
            write(write!(out, "object {number} {id} {pack} {} {}", at.offset, at.len))?;
            for edge in state.index.edges(ordinal)? {
                write(write!(out, " {}", edge.to.0))?;
                let bits: String = edge.members.iter().map(|byte| format!("{byte:02x}")).collect();
                if !bits.is_empty() {
                    write(write!(out, ":{bits}"))?;
                }
            }
            write(writeln!(out))?;
        }
        for row in state.catalog.snapshots()? {
            let SnapshotRow { id, ordinal, client, client_name, sequence, server_time, .. } = row;
            let line = format!("{} {client} {client_name} {sequence} {server_time}", ordinal.0);
            write(writeln!(out, "snapshot {id} {line} {} {}", row.bytes_stored, row.objects_new))?;
        }
        Ok(())
    }
}
