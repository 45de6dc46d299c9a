//! Making good what is damaged: always into new files; the old ones are kept in `quarantine/`.
//!
//! A repair can be cut off anywhere: the new file gets its name when it is whole and durable, and until then the old
//! one stands. What cannot be made good is marked as lost, and so wanted: a client that still has it sends it again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use backhaul_object::Sealed;
use backhaul_object::breach::Breach;
use backhaul_object::ids::{PackId, VaultId};

use crate::around;
use crate::aside;
use crate::blobs::{Blobs, LocalBlobs};
use crate::catalog::PackRow;
use crate::check::{Damage, Part};
use crate::error::{Doing, Of, StoreError};
use crate::index::{Edge, Ordinal};
use crate::owned::Owned;
use crate::pack::{HEAD_LEN, Head, decode_record};
use crate::parity::{self, Patch};
use crate::sidecar::{Sidecar, sidecar_blob};
use crate::vault::{DESCRIPTOR_COPY, DESCRIPTOR_FILE, Vault, counted, decode_descriptor, pack_blob};
use crate::writer::scan;

/// Bytes copied at once.
const BLOCK: usize = 1 << 20;
/// Largest sidecar that is read.
const SIDECAR_MAX: usize = 64 << 20;
/// Largest descriptor that is read.
const DESCRIPTOR_MAX: usize = 4_096;

impl Vault {
    /// Rebuilds a damaged pack from its parity.
    ///
    /// # Errors
    /// The disk refused the new file.
    pub(crate) fn mend_pack(&self, row: &PackRow, now: u64) -> Result<Mend, StoreError> {
        row.name.map_or(Ok(Mend::Beyond), |name| mend(&self.shared.root, &*self.shared.blobs, &name, now))
    }

    /// Makes the sidecar of a pack that is whole; what was there is kept.
    ///
    /// # Errors
    /// The pack cannot be read or is not whole, or the disk refused.
    pub(crate) fn make_sidecar(&self, row: &PackRow, now: u64) -> Result<(), StoreError> {
        let Some(name) = row.name else { return Ok(()) };
        put_aside(&*self.shared.blobs, &sidecar_blob(&name), now)?;
        parity::make(&*self.shared.blobs, name, row.class, row.bytes)
    }

    /// Replaces a small file, and keeps the old one.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8], now: u64) -> Result<(), StoreError> {
        replace(&*self.shared.blobs, name, bytes, now)
    }

    /// Gives up a pack that cannot be mended: what is readable goes into new packs under its old numbers, the rest is
    /// lost, and so wanted.
    ///
    /// # Errors
    /// The disk refused. Begun anew, it goes on: what has no place and is `needed` is looked for in the old pack, too.
    pub(crate) fn abandon_pack(&self, number: u32, needed: &Owned, now: u64) -> Result<(), StoreError> {
        let Some(row) = self.state().packs.get(&number).cloned() else { return Ok(()) };
        let Some(name) = row.name else { return Ok(()) };
        let readable = self.readable(&row, &pack_blob(&name), needed)?;
        // If all of it is readable, the new pack takes the place of this one, for it has the same name.
        for old in [pack_blob(&name), sidecar_blob(&name)] {
            put_aside(&*self.shared.blobs, &old, now)?;
        }
        let mut session = self.begin(row.session, row.client);
        for (ordinal, sealed, edges) in &readable {
            session.move_here(*ordinal, sealed, edges)?;
        }
        session.finish()?;
        // All that can be saved is in its new place, durably: what is left is lost.
        let mut left: Vec<Ordinal> = Vec::new();
        self.each_located(&mut |ordinal, at| {
            if at.pack == number {
                left.push(ordinal);
            }
        })?;
        let mut state = self.state();
        for ordinal in left {
            if state.index.location(ordinal)?.pack == number {
                state.index.mark_lost(ordinal)?;
            }
        }
        // What is lost must be so on the disk before its pack goes.
        state.flush_index()?;
        state.places_given += 1;
        state.catalog.remove_pack(number)?;
        state.packs.remove(&number);
        drop(state);
        self.remove_pack_files(&name)
    }

    /// Removes what is under a pack's name, and its parity. Whatever is written anew with its old numbers may be byte for
    /// byte what it was before: then it is another pack's by now, and stays.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn remove_pack_files(&self, name: &PackId) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.packs.values().any(|row| row.name == Some(*name)) {
            // What was said of it is not said of what is there now.
            return state.catalog.forget_check(name);
        }
        drop(state);
        self.shared.blobs.remove(&pack_blob(name))?;
        self.shared.blobs.remove(&sidecar_blob(name))
    }
}

impl Vault {
    /// The records of a damaged pack that are whole and have no better place.
    fn readable(
        &self,
        row: &PackRow,
        blob: &str,
        needed: &Owned,
    ) -> Result<Vec<(Ordinal, Sealed, Vec<Edge>)>, StoreError> {
        let Some(len) = self.shared.blobs.len(blob)? else { return Ok(Vec::new()) };
        let read = |offset, len| around::read(&*self.shared.blobs, blob, offset, len);
        let mut readable = Vec::new();
        for found in scan(len, &read)? {
            let bytes = read(u64::from(found.offset), found.len() as usize)?;
            let Ok((ordinal, sealed)) = decode_record(&bytes) else { continue };
            let state = self.state();
            if ordinal.0 >= state.index.objects() || state.index.short(ordinal)? != sealed.header.id.short() {
                continue;
            }
            let at = state.index.location(ordinal)?;
            if (at.pack, at.offset) == (row.number, found.offset) || (at.len == 0 && needed.reaches(ordinal))
            {
                let edges = state.index.edges(ordinal)?;
                // Otherwise it is the patch that a chunk was before it came back whole.
                if edges.len() == sealed.header.references.len() {
                    readable.push((ordinal, sealed, edges));
                }
            }
        }
        Ok(readable)
    }
}

/// Keeps a file that is about to be replaced, be it one that cannot be read.
pub(crate) fn put_aside(blobs: &dyn Blobs, name: &str, now: u64) -> Result<(), StoreError> {
    if matches!(blobs.len(name), Ok(None)) {
        return Ok(());
    }
    let night = counted(blobs).map_or(u64::MAX, |nights| nights.unwrap_or_default().count);
    for kept in aside::names(name, now, night) {
        if blobs.keep_as(name, &kept)? {
            break;
        }
    }
    Ok(())
}

/// Replaces a small file, and keeps the old one.
pub(crate) fn replace(blobs: &dyn Blobs, name: &str, bytes: &[u8], now: u64) -> Result<(), StoreError> {
    put_aside(blobs, name, now)?;
    blobs.put(name, bytes)
}

/// What came of mending a pack.
pub(crate) enum Mend {
    /// It is whole again; how.
    Done(String),
    /// More is damaged than its parity makes good.
    Beyond,
    /// Pack or parity could not be read now: what can be made good is not known.
    Later,
}

/// Rebuilds a damaged pack from its parity, as [`Vault::mend_pack`], where no vault is open.
pub(crate) fn mend(root: &Path, blobs: &dyn Blobs, name: &PackId, now: u64) -> Result<Mend, StoreError> {
    let sidecar = match load_sidecar(blobs, name) {
        Ok(Some(sidecar)) if sidecar.table().pack == *name => sidecar,
        Ok(_) | Err(StoreError::Damaged { .. }) => return Ok(Mend::Beyond),
        Err(_) => return Ok(Mend::Later),
    };
    let blob = pack_blob(name);
    let is_there = blobs.len(&blob)?.is_some();
    let mut is_refused = false;
    let mut read = |offset, out: &mut [u8]| {
        let read = around::read_into(blobs, &blob, offset, out);
        is_refused |= is_there && read.is_err();
        match read? == out.len() {
            true => Ok(()),
            false => Err(StoreError::damaged("the pack", "it is too short")),
        }
    };
    let patches = parity::mend(&sidecar, &mut read);
    if is_refused {
        return Ok(Mend::Later);
    }
    let Ok(patches) = patches else { return Ok(Mend::Beyond) };
    let len = sidecar.table().layout.pack_len;
    // Not listed while it is being written, and written over by the next try.
    let file = root.join(format!("{blob}.tmp"));
    let source = is_there.then_some(blob.as_str());
    if copy_patched(blobs, source, len, &patches, &file)? != *name {
        let _ = std::fs::remove_file(&file);
        return Ok(Mend::Beyond);
    }
    if Breach::RepairInPlace.is_on() {
        let written = std::fs::read(&file).and_then(|bytes| std::fs::write(root.join(&blob), bytes));
        written.and_then(|()| std::fs::remove_file(&file)).doing("write", &file)?;
        return Ok(Mend::Done("written over".to_owned()));
    }
    put_aside(blobs, &blob, now)?;
    blobs.adopt(&file, &blob)?;
    Ok(Mend::Done(format!("{} blocks computed from parity", patches.len())))
}

/// Writes a pack with patches to a new file; returns what that is to be named.
fn copy_patched(
    blobs: &dyn Blobs,
    blob: Option<&str>,
    len: u64,
    patches: &[Patch],
    path: &Path,
) -> Result<PackId, StoreError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).doing("create", parent)?;
    }
    let file = File::create(path).doing("create", path)?;
    let (mut hasher, mut at, mut buffer) = (blake3::Hasher::new(), 0, vec![0; BLOCK]);
    while at < len {
        let n = (len - at).min(BLOCK as u64) as usize;
        let block = &mut buffer[..n];
        if let Some(blob) = blob {
            around::read_into(blobs, blob, at, block)?;
        }
        // Blocks of parity do not cross those of the copy.
        for patch in patches.iter().filter(|patch| (at..at + n as u64).contains(&patch.offset)) {
            let start = (patch.offset - at) as usize;
            block[start..start + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        hasher.update(block);
        file.write_all_at(block, at).doing("write", path)?;
        at += n as u64;
    }
    file.sync_all().doing("sync", path)?;
    Ok(PackId(*hasher.finalize().as_bytes()))
}

/// Reads a pack's sidecar, damaged or not, if there is one.
pub(crate) fn load_sidecar(blobs: &dyn Blobs, name: &PackId) -> Result<Option<Sidecar>, StoreError> {
    let blob = sidecar_blob(name);
    if blobs.len(&blob)?.is_none() {
        return Ok(None);
    }
    let bytes = around::read(blobs, &blob, 0, SIDECAR_MAX)?;
    Sidecar::parse(bytes).map(Some).of(|| blob)
}

/// Packs that are asked which vault they are of.
const WITNESSES: usize = 8;

/// True if packs are of this vault and none of that.
fn packs_are_of(blobs: &LocalBlobs, this: VaultId, that: VaultId) -> Result<bool, StoreError> {
    let mut own = false;
    for name in blobs.list("packs")?.iter().take(WITNESSES) {
        let Ok(head) = Head::decode(&blobs.read(name, 0, HEAD_LEN)?) else { continue };
        if head.vault == that {
            return Ok(false);
        }
        own |= head.vault == this;
    }
    Ok(own)
}

/// Brings a descriptor that is damaged, or of another vault than the packs, back from its copy, before the vault can be
/// opened.
///
/// # Errors
/// The disk refused. That neither can be read is for [`Vault::open`] to say.
pub fn restore_descriptor(root: &Path, now: u64) -> Result<Option<Damage>, StoreError> {
    let blobs = LocalBlobs::new(root);
    let load = |name: &str| match blobs.len(name)? {
        Some(_) => Ok::<_, StoreError>(Some(blobs.read(name, 0, DESCRIPTOR_MAX)?)),
        None => Ok(None),
    };
    let (found, copy) = (load(DESCRIPTOR_FILE)?, load(DESCRIPTOR_COPY)?);
    let whole = |bytes: &Option<Vec<u8>>| bytes.as_ref().and_then(|bytes| decode_descriptor(bytes));
    let why = match (whole(&found), whole(&copy)) {
        (_, None) => return Ok(None),
        (Some(one), Some(other)) if one.vault == other.vault => return Ok(None),
        (Some(one), Some(other)) if !packs_are_of(&blobs, other.vault, one.vault)? => return Ok(None),
        (Some(_), _) => "it is of another vault than the packs",
        (None, _) if found.is_some() => "it is not what was written",
        (None, _) => "it is missing",
    };
    put_aside(&blobs, DESCRIPTOR_FILE, now)?;
    blobs.put(DESCRIPTOR_FILE, &copy.unwrap_or_default())?;
    let mut damage = Damage::new(Part::File(DESCRIPTOR_FILE.to_owned()), why);
    damage.mended = Some("written anew from its copy".to_owned());
    Ok(Some(damage))
}

#[cfg(test)]
mod tests;
