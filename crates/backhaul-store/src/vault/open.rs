//! Opening a vault: check what is there, finish what a crash left undone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{PackId, VaultId};
use backhaul_object::small_file::checksum;

use crate::acknowledged::Acknowledged;
use crate::atomic::sync_parent;
use crate::blobs::{Blobs, LocalBlobs};
use crate::catalog::{Catalog, Counts, INDEX_VERSION, PackRow};
use crate::error::{Doing, StoreError};
use crate::index::{Index, Ordinal, convert};
use crate::pack::{HEAD_LEN, Head, ID_END, Row, decode_record_id};
use crate::parity::ParityWorker;
use crate::reclaim::{self, condemned};
use crate::vault::{
    DESCRIPTOR_COPY, DESCRIPTOR_FILE, Shared, State, Vault, Writing, lock, open_name, pack_blob,
};
use crate::writer::{PackWriter, salvage};

/// Reads the descriptor of the vault at `root`.
pub(crate) fn read_descriptor(root: &Path) -> Result<Descriptor, StoreError> {
    let path = root.join(DESCRIPTOR_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(match descriptor_copy(root) {
                Some(_) => to_bring_back(root, "it is missing"),
                None => StoreError::NotAVault { path: root.to_path_buf() },
            });
        }
        Err(error) => return Err(error).doing("read", &path),
    };
    decode_descriptor(&bytes).ok_or_else(|| to_bring_back(root, "it is not what was written"))
}

/// The copy of the descriptor, if it is whole.
fn descriptor_copy(root: &Path) -> Option<Descriptor> {
    decode_descriptor(&fs::read(root.join(DESCRIPTOR_COPY)).ok()?)
}

/// The descriptor is of another vault than the catalog: it is the descriptor that is wrong, if its copy is the catalog's.
fn foreign_descriptor(root: &Path, of_catalog: &VaultId) -> Option<StoreError> {
    let copy = descriptor_copy(root)?;
    (copy.vault == *of_catalog).then(|| to_bring_back(root, "it is of another vault than the catalog"))
}

/// A descriptor that cannot serve, and what to do about it.
fn to_bring_back(root: &Path, why: &str) -> StoreError {
    let why = format!("{why}; `backhaul check --repair` brings it back from its copy");
    StoreError::damaged(root.join(DESCRIPTOR_FILE).display().to_string(), why)
}

/// A descriptor's file, if it is whole.
pub(crate) fn decode_descriptor(bytes: &[u8]) -> Option<Descriptor> {
    let (content, sum) = bytes.split_last_chunk::<16>()?;
    let descriptor = Descriptor::decode(content.strip_prefix(b"BHVD")?).ok()?;
    (checksum(content) == *sum).then_some(descriptor)
}

/// SQLite takes for committed what is in its log; whoever was killed before he synced that has promised nothing by it, but whoever
/// comes next does.
fn sync_log(root: &Path) -> Result<(), StoreError> {
    let log = root.join("catalog.sqlite-wal");
    match fs::File::open(&log) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        opened => opened.and_then(|open| open.sync_all()).doing("sync", &log),
    }
}

/// Whoever had the vault before may have ended between making or moving something and making that durable; and SQLite
/// does not look whether the name of its log is.
fn sync_folders(root: &Path) -> Result<(), StoreError> {
    let folders = ["", "packs", "snaps", "open"].map(|name| root.join(name));
    let mut there = folders.iter().filter(|folder| folder.is_dir());
    there.try_for_each(|folder| sync_parent(&folder.join("x")).doing("sync", folder))
}

/// What brings a catalog back that is not there, or not whole.
const REBUILD: &str = "it is missing or was cut short; run `backhaul check --rebuild-index`";

fn catalog_damaged(root: &Path, why: &str) -> StoreError {
    StoreError::damaged(root.join("catalog.sqlite").display().to_string(), why)
}

/// What SQLite could not do now, which says nothing of what is in the file.
fn is_of_the_moment(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    let now = [CannotOpen, DatabaseBusy, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure];
    error.sqlite_error_code().is_some_and(|code| now.contains(&code))
}

/// The catalog of the vault that `descriptor` describes, its generation and what it counts.
fn open_catalog(root: &Path, descriptor: &Descriptor) -> Result<(Catalog, [u8; 16], Counts), StoreError> {
    let path = root.join("catalog.sqlite");
    if !path.try_exists().doing("look for", &path)? {
        return Err(catalog_damaged(root, REBUILD));
    }
    sync_log(root)?;
    let catalog = Catalog::open(&path).map_err(|error| match error {
        StoreError::Catalog(error) if !is_of_the_moment(&error) => catalog_damaged(root, REBUILD),
        other => other,
    })?;
    sync_folders(root)?;
    let (generation, counts) = catalog.meta().ok().flatten().ok_or_else(|| catalog_damaged(root, REBUILD))?;
    if let Some(vault) = catalog.vault()?.filter(|vault| *vault != descriptor.vault) {
        let foreign = catalog_damaged(root, "it is of another vault; run `backhaul check --rebuild-index`");
        return Err(foreign_descriptor(root, &vault).unwrap_or(foreign));
    }
    Ok((catalog, generation, counts))
}

/// A catalog of an earlier time gives numbers out once more that objects have of which it does not know, and of two objects with
/// one number only one can be found. It is refused before anything is cut, removed or written. A pack comes into its place after
/// the catalog has counted what is in it, so that no crash of a server leaves one; a rebuild that was cut off may, and begins again.
/// Of packs in `open/` a crash does leave some, which look the same: `noted` tells.
fn refuse_earlier(
    root: &Path,
    vault: &VaultId,
    (objects, noted): (u64, Option<u64>),
    rows: &[PackRow],
) -> Result<(), StoreError> {
    if let Some(noted) = noted.filter(|noted| *noted > objects) {
        let why = format!(
            "it is of an earlier time: it has {objects} objects, and {noted} were acknowledged; run `backhaul check \
             --rebuild-index`, or put the newer one back"
        );
        return Err(catalog_damaged(root, &why));
    }
    let blobs = LocalBlobs::new(root);
    let known: HashSet<PackId> = rows.iter().filter_map(|row| row.name).collect();
    // What cannot be listed tells against nothing either.
    for blob in (0..=u8::MAX).flat_map(|first| blobs.list(&format!("packs/{first:02x}")).unwrap_or_default())
    {
        let name: Option<PackId> = blob.rsplit('/').next().and_then(|name| name.parse().ok());
        if name.is_none_or(|name| known.contains(&name)) {
            continue;
        }
        if let Some(newest) = newest_in(&blobs, &blob, vault).filter(|newest| *newest >= objects) {
            let why = format!(
                "it is of an earlier time than {blob}, in which is object number {newest}; run `backhaul check \
                 --rebuild-index`, or put the newer one back"
            );
            return Err(catalog_damaged(root, &why));
        }
    }
    Ok(())
}

/// The highest number in a pack of this vault. One that cannot be read tells against nothing, and must not lock everybody out.
fn newest_in(blobs: &dyn Blobs, blob: &str, vault: &VaultId) -> Option<u64> {
    let head = Head::decode(&blobs.read(blob, 0, HEAD_LEN).ok()?).ok()?;
    let rows = reclaim::rows(blobs, blob).ok().filter(|_| head.vault == *vault)?;
    rows.iter().map(|row| row.ordinal.0).max()
}

pub(super) fn open(root: &Path) -> Result<Vault, StoreError> {
    let descriptor = read_descriptor(root)?;
    let lock = lock(root)?;
    let (mut catalog, generation, counts) = open_catalog(root, &descriptor)?;
    let rows = catalog.packs().map_err(|_| catalog_damaged(root, REBUILD))?;
    let noted = Acknowledged::load(root, generation).map(|noted| noted.objects);
    refuse_earlier(root, &descriptor.vault, (counts.objects, noted), &rows)?;
    let (index, counts) = open_index(root, &mut catalog, counts)?;
    let fence = condemned::load(root)?;
    let is_reclaimed = counts.objects.checked_sub(1).is_some_and(|last| fence.gone().has(Ordinal(last)));
    if counts.newest.is_some() && index.counts()? != counts && !is_reclaimed {
        let why = "it is not the index of this catalog; run `backhaul check --rebuild-index`";
        return Err(StoreError::damaged(root.join("index").display().to_string(), why));
    }
    let uploads = catalog.uploads().map_err(|_| catalog_damaged(root, REBUILD))?;
    let next_pack = rows.iter().map(|row| row.number).max().unwrap_or(0) + 1;
    let packs: HashMap<u32, PackRow> = rows.iter().map(|row| (row.number, row.clone())).collect();
    let state = State {
        catalog,
        index,
        packs,
        writers: HashMap::new(),
        pending: BTreeMap::new(),
        proven: Vec::new(),
        fence,
        uploads,
        next_pack,
        places_given: 0,
        poisoned: false,
    };
    let blobs: Arc<dyn Blobs> = Arc::new(LocalBlobs::new(root));
    let shared = Shared {
        root: root.to_path_buf(),
        descriptor,
        generation,
        parity: ParityWorker::start(Arc::clone(&blobs)),
        blobs,
        spool: LocalBlobs::new(root),
        state: Mutex::new(state),
        upkeep: Mutex::default(),
        upkeep_next: Mutex::default(),
        reclaiming: Mutex::default(),
        verify: OnceLock::new(),
        _lock: lock,
    };
    let vault = Vault { shared: Arc::new(shared) };
    vault.resume_revived()?;
    vault.resume_reclaim()?;
    vault.finish_packs(&rows)?;
    vault.sweep_open(noted == Some(counts.objects))?;
    vault.flush()?;
    vault.adopt_manifests()?;
    Acknowledged { generation, objects: counts.objects }.renew(root);
    Ok(vault)
}

/// Opens the index; one of an earlier version is converted before.
fn open_index(root: &Path, catalog: &mut Catalog, counts: Counts) -> Result<(Index, Counts), StoreError> {
    let (dir, mut counts) = (root.join("index"), counts);
    if catalog.index_version()? < INDEX_VERSION {
        counts = convert::convert(&dir, &counts)?;
        catalog.set_index(&counts)?;
    }
    convert::sweep(&dir)?;
    Ok((Index::open(&dir, &counts)?, counts))
}

impl Vault {
    /// Cuts packs that were being written back to what was acknowledged; the next flush seals them.
    fn finish_packs(&self, rows: &[PackRow]) -> Result<(), StoreError> {
        for row in rows {
            let name = open_name(row.number);
            match row.name {
                Some(sealed) => {
                    let (blob, file) = (pack_blob(&sealed), self.shared.root.join(&name));
                    // What stands in its place already is what it was before it was damaged, if it has its name.
                    if self.shared.spool.len(&name)?.is_some() {
                        self.shared.blobs.adopt(&file, &blob)?;
                        self.shared.parity.add(sealed, row.class, row.bytes);
                    }
                }
                None => {
                    if self.shared.spool.len(&name)?.is_none() {
                        let why = "it is missing, and objects in it were acknowledged; run `backhaul check --rebuild-index`";
                        return Err(StoreError::damaged(name, why));
                    }
                    let read = |offset, len| self.shared.spool.read(&name, offset, len);
                    let (_, records) = salvage(&name, row.bytes, &read)?;
                    if (records.len() as u64) < row.objects {
                        let (found, known) = (records.len(), row.objects);
                        let why = format!(
                            "{found} of {known} acknowledged objects are readable from its start on; run `backhaul check \
                             --rebuild-index`, which saves what is whole"
                        );
                        return Err(StoreError::damaged(name, why));
                    }
                    self.compare_numbers(row.number, &name, &records)?;
                    let writer = PackWriter::resume(&self.shared.root.join(&name), records)?;
                    let writing = Writing { writer, dirty: true, complete: true };
                    self.state().writers.insert(row.number, writing);
                }
            }
        }
        Ok(())
    }

    /// Whether the numbers in an open pack are those of its objects. Its footer would cover them, and whoever makes the index
    /// anew believes footers.
    fn compare_numbers(&self, pack: u32, name: &str, records: &[Row]) -> Result<(), StoreError> {
        for record in records {
            let raw = self.shared.spool.read(name, u64::from(record.offset), ID_END)?;
            let (state, id) = (self.state(), decode_record_id(&raw).map(|id| id.short()));
            let is_known = record.ordinal.0 < state.index.objects() && {
                let at = state.index.location(record.ordinal)?;
                // It may be lost or reclaimed, or have come back in another pack.
                let is_elsewhere = at.len == 0 || Some(state.index.short(record.ordinal)?) == id;
                (at.pack, at.offset) == (pack, record.offset) || is_elsewhere
            };
            if !is_known {
                let why = format!(
                    "number {} in it is that of no object in it; run `backhaul check --rebuild-index`, which saves what is whole",
                    record.ordinal.0
                );
                return Err(StoreError::damaged(name, why));
            }
        }
        Ok(())
    }
}
