//! Packs that were being written when the process ended: what is whole in them goes into sealed packs. A file that is
//! not understood to its last byte is put aside, never cut or removed: what is in it may have been acknowledged.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use backhaul_object::Kind;
use backhaul_object::ids::{PackId, VaultId};

use super::Report;
use super::numbers::{self, Sure};
use crate::around;
use crate::blobs::Blobs;
use crate::check::{Damage, Part};
use crate::error::{Doing, Of, StoreError};
use crate::pack::{self, Class, HEAD_LEN, Head, Row};
use crate::reclaim::condemned;
use crate::repair::put_aside;
use crate::vault::pack_blob;
use crate::writer::{PackWriter, scan};

/// Seals what is in `open/`. Returns the packs whose numbers no checksum has covered before.
///
/// # Errors
/// The disk refused: everything is still where it was, or in a sealed pack.
pub(super) fn seal_open(
    (root, spool): (&Path, &dyn Blobs),
    vault: VaultId,
    now: u64,
    report: &mut Report,
) -> Result<HashSet<PackId>, StoreError> {
    let mut uncovered = HashSet::new();
    let open = spool.list("open")?.into_iter().map(|name| Found::read(spool, &name));
    let mut open = open.collect::<Result<Vec<_>, _>>()?;
    if open.is_empty() {
        return Ok(uncovered);
    }
    let asked = open.iter().flat_map(|found| &found.rows).map(|row| row.ordinal.0).collect();
    let sure = Sure::read(spool, condemned::load(root)?.gone(), &asked)?;
    open.iter_mut().try_for_each(|found| found.disbelieve(spool, &sure, asked.len()))?;
    for found in open {
        let name = &found.name;
        let sealed = match found.stand() {
            Stand::Empty => continue,
            Stand::Sealed | Stand::Whole => {
                let (file, id, _) = PackWriter::resume(&root.join(name), found.rows.clone())?.finish()?;
                spool.adopt(&file, &pack_blob(&id))?;
                Some(id).filter(|_| found.stand() == Stand::Whole)
            }
            Stand::Damaged(why) => {
                let sealed = save(root, spool, (vault, &found))?;
                put_aside(spool, name, now)?;
                spool.remove(name)?;
                let mut damage = Damage::new(Part::File(name.clone()), why);
                if sealed.is_some() {
                    let count = found.rows.len();
                    damage.mended =
                        Some(format!("its {count} whole records are in a new pack; it is in quarantine/"));
                } else {
                    damage.why = format!("{why}, nor is any of its records; it is in quarantine/");
                }
                report.damage.push(damage);
                sealed
            }
        };
        uncovered.extend(sealed);
    }
    Ok(uncovered)
}

/// A file in `open/`.
struct Found {
    name: String,
    head: Option<Head>,
    rows: Vec<Row>,
    /// What follows the last whole record.
    rest: Vec<u8>,
    /// The disk has lost a part of it, which then reads as zeroes.
    is_holed: bool,
    /// Records were left out: their numbers were never given out.
    is_disbelieved: bool,
}

/// What such a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Nothing was ever in it.
    Empty,
    /// It was finished, footer and all.
    Sealed,
    /// It ends with a whole record, or with what was being written of its footer.
    Whole,
    /// It is none of these; why.
    Damaged(&'static str),
}

impl Found {
    fn read(spool: &dyn Blobs, name: &str) -> Result<Self, StoreError> {
        let size = spool.len(name)?.unwrap_or(0);
        let read = |offset, len| around::read(spool, name, offset, len);
        let head = Head::decode(&read(0, HEAD_LEN)?).ok();
        let rows = scan(size, &read)?;
        let end = rows.last().map_or(HEAD_LEN as u64, |row| u64::from(row.offset) + row.len());
        let rest = read(end, size.saturating_sub(end) as usize)?;
        let whole = spool.read(name, 0, size as usize);
        let is_holed = whole.is_err_and(|error| around::is_medium(&error));
        Ok(Self { name: name.to_owned(), head, rows, rest, is_holed, is_disbelieved: false })
    }

    /// Leaves out records with numbers that cannot be right: none so high was given out, or another object has it. Once they
    /// stand in a footer they would be believed.
    fn disbelieve(&mut self, spool: &dyn Blobs, sure: &Sure, records: usize) -> Result<(), StoreError> {
        if self.stand() == Stand::Sealed {
            return Ok(());
        }
        // Where nothing is sure, most are right all the same.
        let middle = self.rows.get(self.rows.len() / 2).map_or(0, |row| row.ordinal.0.saturating_mul(2));
        let limit = numbers::limit(sure.highest.unwrap_or(middle), records);
        let (name, before) = (&self.name, self.rows.len());
        let mut wrong = HashSet::new();
        for row in &self.rows {
            let owners = sure.owners.get(&row.ordinal.0).map_or(&[][..], Vec::as_slice);
            let id = numbers::id_at(spool, name, row.offset)?;
            if row.ordinal.0 >= limit || id.is_some_and(|id| owners.iter().any(|owner| *owner != id)) {
                wrong.insert(row.offset);
            }
        }
        self.rows.retain(|row| !wrong.contains(&row.offset));
        self.is_disbelieved = self.rows.len() < before;
        Ok(())
    }

    fn stand(&self) -> Stand {
        if self.is_holed {
            return Stand::Damaged("the disk cannot read all of it");
        }
        if self.is_disbelieved {
            return Stand::Damaged("a number in it is not the one that was given out");
        }
        let mut end = HEAD_LEN as u64;
        for row in &self.rows {
            if u64::from(row.offset) != end {
                return Stand::Damaged("a record in it is not what was written");
            }
            end += row.len();
        }
        let is_blank = self.rest.iter().all(|byte| *byte == 0);
        if self.rows.is_empty() && is_blank {
            return Stand::Empty;
        }
        if self.head.is_none() {
            return Stand::Damaged("its head is not what was written");
        }
        let footer = pack::encode_footer(&self.rows);
        match self.rest == footer {
            true => Stand::Sealed,
            false if is_blank || footer.starts_with(&self.rest) => Stand::Whole,
            false => Stand::Damaged("its end is not a whole record"),
        }
    }

    /// Its head, or as much of it as its records say.
    fn head(&self, vault: VaultId, first: Kind) -> Head {
        self.head.unwrap_or(Head::of_nobody(Class::of(first), vault))
    }
}

/// Writes what is whole of a damaged file into a new pack; none when nothing is.
fn save(
    root: &Path,
    spool: &dyn Blobs,
    (vault, found): (VaultId, &Found),
) -> Result<Option<PackId>, StoreError> {
    // Not listed, and written over by the next try.
    let path = root.join(format!("{}.tmp", found.name));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).doing("remove", &path)?,
        _ => {}
    }
    let mut writer: Option<PackWriter> = None;
    for row in &found.rows {
        let bytes = around::read(spool, &found.name, u64::from(row.offset), row.len() as usize)?;
        let (ordinal, sealed) = pack::decode_record(&bytes).of(|| found.name.clone())?;
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(PackWriter::create(&path, &found.head(vault, sealed.header.kind))?),
        };
        writer.append(ordinal, &sealed.header.encode(), &sealed.body)?;
    }
    let Some(writer) = writer else { return Ok(None) };
    let (file, id, _) = writer.finish()?;
    spool.adopt(&file, &pack_blob(&id))?;
    Ok(Some(id))
}

#[cfg(test)]
mod tests;
