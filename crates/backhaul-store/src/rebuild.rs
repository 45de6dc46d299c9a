//! Making catalog and index anew from packs and manifests alone.

use std::fs;
use std::path::Path;

use backhaul_object::{Header, Reference};

use crate::blobs::{Blobs, LocalBlobs};
use crate::catalog::{Catalog, Counts, PackRow};
use crate::error::{Doing, Of, StoreError};
use crate::index::{Edge, Index, Location, Ordinal};
use crate::pack::{self, HEAD_LEN, Head, RECORD_HEAD_LEN, Row, TRAILER_LEN};
use crate::vault::{Vault, lock, pack_blob, read_descriptor};
use crate::writer::{PackWriter, salvage};

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
    pub damage: Vec<(String, String)>,
}

/// A record on its way into the index: 24 bytes of memory an object.
struct Found {
    ordinal: Ordinal,
    pack: u32,
    offset: u32,
    len: u32,
}

/// Rebuilds the caches of the vault at `root`. Until the last step the old ones stay as they are.
///
/// # Errors
/// No vault there, in use, or the disk refused. Damaged packs are in the report.
pub fn rebuild(root: &Path, generation: [u8; 16]) -> Result<Report, StoreError> {
    let descriptor = read_descriptor(root)?;
    let held = lock(root)?;
    let blobs = LocalBlobs::new(root);
    let mut report = Report::default();
    seal_open(root, &blobs, &mut report)?;
    let (mut packs, mut found) = (Vec::new(), Vec::new());
    for name in blobs.list("packs")? {
        match read_pack(&blobs, &name, packs.len() as u32 + 1) {
            Ok((row, _)) if row.1 != descriptor.vault => {
                report.damage.push((name, "it belongs to another vault".to_owned()));
            }
            Ok(((row, _), records)) => {
                let number = row.number;
                found.extend(records.iter().map(|r| Found {
                    ordinal: r.ordinal,
                    pack: number,
                    offset: r.offset,
                    len: r.len() as u32,
                }));
                packs.push(row);
            }
            Err(error) => report.damage.push((name, error.to_string())),
        }
    }
    found.sort_by_key(|f| f.ordinal);
    let fresh = root.join("index.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).doing("remove", &fresh)?;
    }
    fs::create_dir(&fresh).doing("create", &fresh)?;
    let index = fill(&fresh, &blobs, &packs, &found, &mut report)?;
    let counts = Counts { objects: index.objects(), members: index.members() };
    drop(index);
    write_catalog(root, generation, counts, &packs)?;
    report.packs = packs.len() as u64;
    drop(held);
    report.snapshots = Vault::open(root)?.snapshots(None)?.len() as u64;
    Ok(report)
}

/// Salvages packs that were being written when the process ended.
fn seal_open(root: &Path, spool: &LocalBlobs, report: &mut Report) -> Result<(), StoreError> {
    for name in spool.list("open")? {
        let size = spool.len(&name)?.unwrap_or(0);
        match salvage(&name, size, &|offset, len| spool.read(&name, offset, len)) {
            Ok((_, rows)) if !rows.is_empty() => {
                let (file, id, _) = PackWriter::resume(&root.join(&name), rows)?.finish()?;
                spool.adopt(&file, &pack_blob(&id))?;
            }
            Ok(_) => {}
            Err(error) => report.damage.push((name, error.to_string())),
        }
    }
    Ok(())
}

type Read = ((PackRow, backhaul_object::ids::VaultId), Vec<Row>);

/// Head and rows of a sealed pack; where the footer is damaged, of the records that are whole.
fn read_pack(blobs: &dyn Blobs, name: &str, number: u32) -> Result<Read, StoreError> {
    let what = || name.to_owned();
    let bytes = blobs.len(name)?.unwrap_or(0);
    let head = Head::decode(&blobs.read(name, 0, HEAD_LEN)?).of(what)?;
    let id = name.rsplit('/').next().unwrap_or_default().parse().of(what)?;
    let footer = || {
        let trailer = blobs.read(name, bytes.saturating_sub(TRAILER_LEN as u64), TRAILER_LEN)?;
        let len = pack::footer_len(&trailer).of(what)?;
        pack::decode_footer(&blobs.read(name, bytes.saturating_sub(len as u64), len)?).of(what)
    };
    let rows = match footer() {
        Ok(rows) => rows,
        Err(_) => salvage(name, bytes, &|offset, len| blobs.read(name, offset, len))?.1,
    };
    let Head { class, session, client, vault } = head;
    let objects = rows.len() as u64;
    Ok(((PackRow { number, name: Some(id), class, session, client, bytes, objects }, vault), rows))
}

/// Enters every record under its old number; gaps and orphans become lost numbers.
fn fill(
    dir: &Path,
    blobs: &dyn Blobs,
    packs: &[PackRow],
    found: &[Found],
    report: &mut Report,
) -> Result<Index, StoreError> {
    let mut index = Index::open(dir, 0, 0)?;
    // A child had a smaller number than its parent: if it is not there, its number is among these.
    let mut gaps: Vec<Ordinal> = Vec::new();
    for record in found {
        if record.ordinal.0 < index.objects() {
            report
                .damage
                .push((format!("object number {}", record.ordinal.0), "it is there twice".to_owned()));
            continue;
        }
        while index.objects() < record.ordinal.0 {
            gaps.push(Ordinal(index.objects()));
            index.append_lost();
        }
        let pack = packs.get(record.pack as usize - 1).and_then(|row| row.name);
        let blob = pack.map(|name| pack_blob(&name)).unwrap_or_default();
        let entered = read_header(blobs, &blob, record).and_then(|header| {
            let edges = resolve(&mut index, &header, &mut gaps)?;
            let at = Location { pack: record.pack, offset: record.offset, len: record.len };
            index.append(&header, at, &edges)
        });
        match entered {
            Ok(_) => report.objects += 1,
            Err(error) => {
                report
                    .damage
                    .push((format!("object number {} in {blob}", record.ordinal.0), error.to_string()));
                gaps.push(Ordinal(index.objects()));
                index.append_lost();
            }
        }
    }
    index.flush()?;
    Ok(index)
}

/// Edges of a record; what it refers to and is not there gets one of the lost numbers.
fn resolve(index: &mut Index, header: &Header, gaps: &mut Vec<Ordinal>) -> Result<Vec<Edge>, StoreError> {
    let mut edges = Vec::with_capacity(header.references.len());
    for Reference { id, members } in &header.references {
        let known = match index.ordinal(id)? {
            None => index.lost_ordinal(id)?,
            known => known,
        };
        let to = match known {
            Some(to) => to,
            None => {
                let gap = gaps.pop().ok_or(StoreError::MissingReference(*id))?;
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

/// Writes the new catalog and puts both caches in place of the old.
fn write_catalog(
    root: &Path,
    generation: [u8; 16],
    counts: Counts,
    packs: &[PackRow],
) -> Result<(), StoreError> {
    let (fresh, path) = (root.join("catalog.new"), root.join("catalog.sqlite"));
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).doing("remove", path),
        _ => Ok(()),
    };
    for suffix in ["", "-wal", "-shm"] {
        remove(&root.join(format!("catalog.new{suffix}")))?;
    }
    let mut catalog = Catalog::open(&fresh)?;
    catalog.initialise(&generation)?;
    catalog.flush(counts, packs, &[])?;
    drop(catalog);
    for suffix in ["", "-wal", "-shm"] {
        remove(&root.join(format!("catalog.sqlite{suffix}")))?;
    }
    let (index, new) = (root.join("index"), root.join("index.new"));
    if index.exists() {
        fs::remove_dir_all(&index).doing("remove", &index)?;
    }
    fs::rename(&new, &index).doing("move into place", &index)?;
    fs::rename(&fresh, &path).doing("move into place", &path)?;
    crate::atomic::sync_parent(&path).doing("sync", root)
}
