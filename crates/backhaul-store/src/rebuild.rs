//! Making catalog and index anew from packs and manifests alone.
//!
//! - `away`: not while most packs are not there;
//! - `spool`: packs that were being written are sealed first; `packs`: what a sealed one holds, whatever of it is damaged;
//! - `numbers`: which of the records that claim a number has it; `again`: what was reclaimed and is needed all the same;
//! - `fresh`: the new caches come into their place.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;

use backhaul_object::breach::Breach;
use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{PackId, VaultId};
use backhaul_object::{Header, Kind, Reference};

use crate::blobs::{Blobs, LocalBlobs};
use crate::catalog::{Counts, PackRow};
use crate::check::{Damage, Mending, Part};
use crate::error::{Doing, Of, StoreError};
use crate::index::{Edge, Index, Location, Ordinal};
use crate::pack::{self, RECORD_HEAD_LEN};
use crate::reclaim::fence::Fence;
use crate::reclaim::{condemned, without_condemned};
use crate::repair::{self, Mend};
use crate::vault::{Pair, Vault, lock, pack_blob, read_descriptor};

mod again;
mod away;
mod fresh;
mod numbers;
mod packs;
mod spool;

pub(crate) use packs::hash;

use again::needed_again;
use fresh::write_catalog;
use numbers::Packs;
use packs::{is_clean, read_pack};

/// What a rebuild found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Packs read.
    pub packs: u64,
    /// Objects entered.
    pub objects: u64,
    /// Snapshots entered.
    pub snapshots: u64,
    /// What could not be used, and why.
    pub damage: Vec<Damage>,
}

/// A record on its way into the index: 24 bytes of memory an object.
struct Found {
    ordinal: Ordinal,
    pack: u32,
    offset: u32,
    len: u32,
}

/// Rebuilds the caches of the vault at `root`. Until the last step the old ones stay as they are. With leave to mend,
/// packs and manifests that are not whole are brought back first, as far as these can tell by themselves.
///
/// # Errors
/// No vault there, in use, most of its packs away, or the disk refused. Damaged packs are in the report.
pub fn rebuild(root: &Path, generation: [u8; 16], mending: Mending, now: u64) -> Result<Report, StoreError> {
    let (descriptor, held) = (read_descriptor(root)?, lock(root)?);
    away::refuse(root, &LocalBlobs::new(root), &descriptor.vault)?;
    make_anew((root, &descriptor, held), generation, mending, now)
}

/// The same for who knows that the packs which are not there are lost.
///
/// # Errors
/// As [`rebuild`]'s, but for packs that are away.
pub fn rebuild_from_what_is_left(
    root: &Path,
    generation: [u8; 16],
    mending: Mending,
    now: u64,
) -> Result<Report, StoreError> {
    let (descriptor, held) = (read_descriptor(root)?, lock(root)?);
    make_anew((root, &descriptor, held), generation, mending, now)
}

fn make_anew(
    (root, descriptor, held): (&Path, &Descriptor, File),
    generation: [u8; 16],
    mending: Mending,
    now: u64,
) -> Result<Report, StoreError> {
    let blobs = LocalBlobs::new(root);
    let mut report = Report::default();
    let saved = spool::seal_open((root, &blobs), descriptor.vault, now, &mut report)?;
    if mending == Mending::Mend {
        restore_manifests(&blobs, now, &mut report)?;
    }
    let Gathered { packs, mut found, uncovered } =
        gather((root, &blobs), &descriptor.vault, (mending, now), &saved, &mut report)?;
    let mut fence = leave_out_gone(root, &blobs, &packs, &mut found)?;
    found.sort_by_key(|f| f.ordinal);
    let listed = Packs { blobs: &blobs, rows: &packs, uncovered: &uncovered };
    listed.bound(&mut found, fence.gone(), &mut report);
    let fresh = root.join("index.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).doing("remove", &fresh)?;
    }
    fs::create_dir(&fresh).doing("create", &fresh)?;
    let index = fill(&fresh, &listed, &found, &mut fence, &mut report)?;
    let counts = index.counts()?;
    drop(index);
    condemned::store(root, &fence)?;
    write_catalog(root, (&generation, &descriptor.vault), counts, &packs)?;
    report.packs = packs.len() as u64;
    drop(held);
    let vault = Vault::open(root)?;
    vault.settle_rebuilt()?;
    report.snapshots = vault.snapshots(None)?.len() as u64;
    report.damage.extend(vault.disputes()?);
    Ok(report)
}

/// What all packs hold.
#[derive(Default)]
struct Gathered {
    packs: Vec<PackRow>,
    found: Vec<Found>,
    /// Packs whose numbers no checksum covers.
    uncovered: HashSet<u32>,
}

/// Reads all packs; with leave to mend, those that are not whole are mended before.
fn gather(
    (root, blobs): (&Path, &LocalBlobs),
    vault: &VaultId,
    (mending, now): (Mending, u64),
    saved: &HashSet<PackId>,
    report: &mut Report,
) -> Result<Gathered, StoreError> {
    let mut all = Gathered::default();
    for name in blobs.list("packs")? {
        let number = all.packs.len() as u32 + 1;
        let mut read = read_pack(blobs, &name, number, vault);
        if let (Err(why), Mending::Mend) = (is_clean(&read), mending)
            && let Some(how) = mend_blob(root, blobs, &name, now)?
        {
            let mut damage = Damage::new(Part::File(name.clone()), why);
            damage.mended = Some(how);
            report.damage.push(damage);
            read = read_pack(blobs, &name, number, vault);
        }
        match read {
            Ok(read) if read.vault != *vault => {
                report.damage.push(Damage::new(Part::File(name), "it belongs to another vault"));
            }
            Ok(read) => {
                if read.flaw.is_some() || read.row.name.is_some_and(|id| saved.contains(&id)) {
                    all.uncovered.insert(number);
                }
                all.found.extend(read.records.iter().map(|r| Found {
                    ordinal: r.ordinal,
                    pack: number,
                    offset: r.offset,
                    len: r.len() as u32,
                }));
                all.packs.push(read.row);
                if Breach::ForgetfulRebuild.is_on() {
                    all.found.pop();
                }
            }
            // What could not be read now is not damaged: nothing was changed yet, and it can be tried again.
            Err(error @ StoreError::Io { .. }) => return Err(error),
            Err(error) => report.damage.push(Damage::new(Part::File(name), error)),
        }
    }
    Ok(all)
}

/// What was reclaimed stays out, unless it is needed all the same.
fn leave_out_gone(
    root: &Path,
    blobs: &dyn Blobs,
    packs: &[PackRow],
    found: &mut Vec<Found>,
) -> Result<Fence, StoreError> {
    let mut fence = without_condemned(root)?;
    for ordinal in needed_again(blobs, packs, found, fence.gone())? {
        fence.revive(ordinal);
    }
    found.retain(|record| !fence.gone().has(record.ordinal));
    Ok(fence)
}

/// Mends a pack by its name alone.
fn mend_blob(root: &Path, blobs: &dyn Blobs, name: &str, now: u64) -> Result<Option<String>, StoreError> {
    match name.rsplit('/').next().unwrap_or_default().parse() {
        Ok(id) => match repair::mend(root, blobs, &id, now)? {
            Mend::Done(how) => Ok(Some(how)),
            Mend::Beyond | Mend::Later => Ok(None),
        },
        Err(_) => Ok(None),
    }
}

/// Manifests that are damaged, missing or not to be believed come back from their copies: a copy goes before its manifest does, so one that
/// is left alone says that its manifest was lost.
fn restore_manifests(blobs: &dyn Blobs, now: u64, report: &mut Report) -> Result<(), StoreError> {
    for copy in blobs.list("copies")?.into_iter().filter(|name| name.ends_with(".snap")) {
        let name = copy.replacen("copies/", "snaps/", 1);
        let Pair { manifest: Err(why), copy: Some(Ok(good)), .. } = Pair::read(blobs, &name) else {
            continue;
        };
        // What was there is kept aside, be it one that cannot be read.
        repair::replace(blobs, &name, &good.encode(), now)?;
        let mut damage = Damage::new(Part::File(name), why);
        damage.mended = Some("written anew from its copy".to_owned());
        report.damage.push(damage);
    }
    Ok(())
}

/// Numbers under which there is nothing, for what is referred to and is not there.
struct Gaps<'f> {
    /// Of what was lost.
    lost: Vec<Ordinal>,
    /// Of what was reclaimed: what was so and is needed is lost as well.
    fence: &'f mut Fence,
}

impl Gaps<'_> {
    /// A number under which there is nothing.
    fn add(&mut self, gap: Ordinal) {
        if !self.fence.gone().has(gap) {
            self.lost.push(gap);
        }
    }

    /// One below `before`: a child had a smaller number than its parent.
    fn take(&mut self, before: u64) -> Option<Ordinal> {
        let spare = || self.fence.gone().iter().next().filter(|gone| gone.0 < before);
        let gap = self.lost.pop().or_else(spare)?;
        self.fence.revive(gap);
        Some(gap)
    }
}

/// Enters every record under its old number; gaps and orphans become lost numbers.
fn fill(
    dir: &Path,
    packs: &Packs<'_>,
    found: &[Found],
    fence: &mut Fence,
    report: &mut Report,
) -> Result<Index, StoreError> {
    let mut index = Index::open(dir, &Counts::default())?;
    let mut gaps = Gaps { lost: Vec::new(), fence };
    for group in found.chunk_by(|a, b| a.ordinal == b.ordinal) {
        let Some(record) = packs.choose(group, report) else { continue };
        while index.objects() < record.ordinal.0 {
            gaps.add(Ordinal(index.objects()));
            index.append_lost();
        }
        let blob = blob_of(packs.rows, record);
        // A disk that refuses may do so for the moment only: it is asked once more before something counts as lost.
        let header = match read_header(packs.blobs, &blob, record) {
            Err(StoreError::Io { .. }) => read_header(packs.blobs, &blob, record),
            header => header,
        };
        let edges = header.map(|header| (resolve(&mut index, &header, &mut gaps), header));
        match edges {
            Ok((Ok(edges), header)) => {
                let at = Location { pack: record.pack, offset: record.offset, len: record.len };
                let ordinal = index.append(&header, at, &edges)?;
                lose_if_baseless(&mut index, &header, ordinal, &edges)?;
                report.objects += 1;
            }
            // That the new index cannot be read says nothing of the object.
            Ok((Err(error @ StoreError::Io { .. }), _)) => return Err(error),
            Ok((Err(error), _)) | Err(error) => {
                let why = format!("object number {}: {error}", record.ordinal.0);
                report.damage.push(Damage::new(Part::File(blob), why));
                gaps.add(Ordinal(index.objects()));
                index.append_lost();
            }
        }
    }
    // What comes next must have a number that was not reclaimed: such a one is never read again.
    let reclaimed = gaps.fence.gone().ranges().last().map_or(0, |range| range.end);
    while index.objects() < reclaimed {
        index.append_lost();
    }
    index.flush()?;
    Ok(index)
}

/// A patch whose base is not there makes nothing: its chunk is wanted whole.
fn lose_if_baseless(
    index: &mut Index,
    header: &Header,
    ordinal: Ordinal,
    edges: &[Edge],
) -> Result<(), StoreError> {
    if header.kind == Kind::Patch {
        for edge in edges {
            if index.location(edge.to)?.len == 0 {
                return index.mark_lost(ordinal);
            }
        }
    }
    Ok(())
}

fn blob_of(packs: &[PackRow], record: &Found) -> String {
    let pack = packs.get(record.pack as usize - 1).and_then(|row| row.name);
    pack.map(|name| pack_blob(&name)).unwrap_or_default()
}

/// Edges of a record; what it refers to and is not there gets one of the lost numbers.
fn resolve(index: &mut Index, header: &Header, gaps: &mut Gaps<'_>) -> Result<Vec<Edge>, StoreError> {
    let mut edges = Vec::with_capacity(header.references.len());
    for Reference { id, members } in &header.references {
        let known = match index.ordinal(id)? {
            None => index.lost_ordinal(id)?,
            known => known,
        };
        let to = match known {
            Some(to) => to,
            None => {
                let gap = gaps.take(index.objects()).ok_or(StoreError::MissingReference(*id))?;
                index.name_lost(gap, id)?;
                gap
            }
        };
        edges.push(Edge { to, members: members.clone() });
    }
    Ok(edges)
}

fn read_header(blobs: &dyn Blobs, blob: &str, record: &Found) -> Result<Header, StoreError> {
    let what = || blob.to_owned();
    let at = u64::from(record.offset);
    let (row, _) =
        pack::decode_record_head(&blobs.read(blob, at, RECORD_HEAD_LEN)?, record.offset).of(what)?;
    let bytes = blobs.read(blob, at + RECORD_HEAD_LEN as u64, row.header_len as usize)?;
    Header::decode(&bytes).of(what)
}
