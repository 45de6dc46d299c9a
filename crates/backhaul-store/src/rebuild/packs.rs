//! What a sealed pack holds, as far as it can be read.

use backhaul_object::ids::{PackId, VaultId};

use crate::around;
use crate::blobs::Blobs;
use crate::catalog::PackRow;
use crate::error::{Of, StoreError};
use crate::pack::{self, Class, HEAD_LEN, Head, Row, TRAILER_LEN};
use crate::writer::scan;

/// Bytes read at once.
const BLOCK: usize = 512 << 10;

/// A pack as it was found.
pub(super) struct Read {
    pub row: PackRow,
    pub vault: VaultId,
    pub records: Vec<Row>,
    /// Why its head or its footer cannot be believed, if it cannot.
    pub flaw: Option<String>,
}

pub(super) fn is_clean(read: &Result<Read, StoreError>) -> Result<(), String> {
    match read {
        Ok(Read { flaw: None, .. }) => Ok(()),
        Ok(Read { flaw: Some(flaw), .. }) => Err(flaw.clone()),
        Err(error) => Err(error.to_string()),
    }
}

/// Head and rows of a sealed pack. One of metadata is read whole: what its headers say becomes the index. Where it is
/// damaged, its records are those that are whole; where its head is, it is taken to be `ours` and nobody's.
pub(super) fn read_pack(
    blobs: &dyn Blobs,
    name: &str,
    number: u32,
    ours: &VaultId,
) -> Result<Read, StoreError> {
    let what = || name.to_owned();
    let bytes = blobs.len(name)?.unwrap_or(0);
    let read = |offset, len| around::read(blobs, name, offset, len);
    let id: PackId = name.rsplit('/').next().unwrap_or_default().parse().of(what)?;
    let footer = || {
        let trailer = read(bytes.saturating_sub(TRAILER_LEN as u64), TRAILER_LEN)?;
        let len = pack::footer_len(&trailer).of(what)?;
        pack::decode_footer(&read(bytes.saturating_sub(len as u64), len)?).of(what)
    };
    let mut head = Head::decode(&read(0, HEAD_LEN)?).of(what);
    // It says that it is another vault's: with ours in that place its bytes may hash to its name.
    if let Ok(other) = head
        && other.vault != *ours
        && hash(blobs, name, Some(Head { vault: *ours, ..other }))? == id
    {
        head = Err(StoreError::damaged(name, "its head is not what was written"));
    }
    let trusted = match &head {
        Ok(head) if head.class == Class::Meta && hash(blobs, name, None)? != id => {
            Err(StoreError::damaged(name, "its bytes do not hash to its name"))
        }
        Ok(_) => footer(),
        Err(error) => Err(StoreError::damaged(name, error)),
    };
    let (records, flaw) = match trusted {
        Ok(rows) => (rows, None),
        Err(error @ StoreError::Io { .. }) => return Err(error),
        Err(error) => (scan(bytes, &read)?, Some(error.to_string())),
    };
    let Head { class, session, client, vault } = match (head, records.first()) {
        (Ok(head), _) => head,
        (Err(_), Some(first)) => {
            let record = read(u64::from(first.offset), first.len() as usize)?;
            let class = Class::of(pack::decode_record(&record).of(what)?.1.header.kind);
            Head::of_nobody(class, *ours)
        }
        (Err(error), None) => return Err(error),
    };
    let objects = records.len() as u64;
    let row = PackRow { number, name: Some(id), class, session, client, bytes, objects };
    Ok(Read { row, vault, records, flaw })
}

/// The name of a pack by its bytes; with another head in place of its own.
///
/// # Errors
/// It cannot be read, for another reason than that the disk has lost some of it.
pub(crate) fn hash(blobs: &dyn Blobs, name: &str, instead: Option<Head>) -> Result<PackId, StoreError> {
    let (mut hasher, mut at, mut block) = (blake3::Hasher::new(), 0, vec![0; BLOCK]);
    loop {
        let n = around::read_into(blobs, name, at, &mut block)?;
        if let (0, Some(head), HEAD_LEN..) = (at, &instead, n) {
            block[..HEAD_LEN].copy_from_slice(&head.encode());
        }
        hasher.update(&block[..n]);
        at += n as u64;
        if n < block.len() {
            return Ok(PackId(*hasher.finalize().as_bytes()));
        }
    }
}
