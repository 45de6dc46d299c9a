//! A pack being written: append, sync, finish. Readable at any moment.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backhaul_object::breach::Breach;
use backhaul_object::ids::PackId;

use crate::error::{Doing, Of, StoreError};
use crate::index::Ordinal;
use crate::pack::{self, HEAD_LEN, Head, Row};

/// Bytes read at once while a record is looked for.
const SCAN_BLOCK: usize = 256 << 10;

/// A growing pack file in `open/`.
pub struct PackWriter {
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    len: u64,
    rows: Vec<Row>,
}

impl PackWriter {
    /// Makes the file and writes its head.
    ///
    /// # Errors
    /// The disk refused.
    pub fn create(path: &Path, head: &Head) -> Result<Self, StoreError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path).doing("create", path)?;
        let head = head.encode();
        if let Err(error) = file.write_all_at(&head, 0) {
            // Its number will be tried again.
            let _ = fs::remove_file(path);
            return Err(error).doing("write", path);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&head);
        Ok(Self { path: path.to_path_buf(), file, hasher, len: HEAD_LEN as u64, rows: Vec::new() })
    }

    /// Opens an interrupted pack cut back to its first `rows`.
    ///
    /// # Errors
    /// The file cannot be read or cut.
    pub fn resume(path: &Path, rows: Vec<Row>) -> Result<Self, StoreError> {
        let file = OpenOptions::new().read(true).write(true).open(path).doing("open", path)?;
        let len = rows.last().map_or(HEAD_LEN as u64, |row| u64::from(row.offset) + row.len());
        file.set_len(len).doing("cut", path)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).doing("read", path)?;
        Ok(Self { path: path.to_path_buf(), file, hasher, len, rows })
    }

    /// Adds a record; returns where it is.
    ///
    /// # Errors
    /// The disk refused; the pack must then not be used any further.
    pub fn append(&mut self, ordinal: Ordinal, header: &[u8], body: &[u8]) -> Result<Row, StoreError> {
        let before = pack::encode_before_body(ordinal, header, body);
        let (parts, mut end) = ([&before, body], self.len);
        for part in parts {
            let written = self.file.write_all_at(part, end).doing("write", &self.path);
            if !Breach::SwallowedWrite.is_on() {
                written?;
            }
            end += part.len() as u64;
        }
        // Only when all of it is there: a pack is finished without the record that did not fit, and named by the rest.
        for part in parts {
            self.hasher.update(part);
        }
        let (header_len, body_len) = (header.len() as u32, body.len() as u32);
        let row = Row { ordinal, offset: self.len as u32, header_len, body_len };
        self.rows.push(row);
        self.len = end;
        Ok(row)
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True before the first record.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// The disk refused: nothing since the last sync may be relied on.
    pub fn sync(&self) -> Result<(), StoreError> {
        if Breach::UnsyncedPacks.is_on() {
            return Ok(());
        }
        self.file.sync_data().doing("sync", &self.path)
    }

    /// Writes the footer and syncs; the file is then a whole pack of the returned name and length. May be tried
    /// again after an error.
    ///
    /// # Errors
    /// The disk refused.
    pub fn finish(&self) -> Result<(PathBuf, PackId, u64), StoreError> {
        let footer = pack::encode_footer(&self.rows);
        let len = self.len + footer.len() as u64;
        self.file.write_all_at(&footer, self.len).doing("write", &self.path)?;
        // A record that was cut short by a full disk may reach further.
        self.file.set_len(len).doing("cut", &self.path)?;
        if !Breach::UnsyncedPacks.is_on() {
            self.file.sync_all().doing("sync", &self.path)?;
        }
        let mut hasher = self.hasher.clone();
        hasher.update(&footer);
        Ok((self.path.clone(), PackId(*hasher.finalize().as_bytes()), len))
    }

    /// Removes the file.
    ///
    /// # Errors
    /// The disk refused.
    pub fn discard(&self) -> Result<(), StoreError> {
        fs::remove_file(&self.path).doing("remove", &self.path)
    }
}

/// The records that are whole and in order at the start of a pack of `size` bytes; `read` gives a range.
///
/// # Errors
/// The head is not that of a pack, or `read` failed.
pub fn salvage(
    what: &str,
    size: u64,
    read: &dyn Fn(u64, usize) -> Result<Vec<u8>, StoreError>,
) -> Result<(Head, Vec<Row>), StoreError> {
    let head = Head::decode(&read(0, HEAD_LEN)?).of(|| what.to_owned())?;
    let (mut rows, mut at) = (Vec::new(), HEAD_LEN as u64);
    while at + (pack::RECORD_HEAD_LEN as u64) <= size {
        let Ok((row, _)) = pack::decode_record_head(&read(at, pack::RECORD_HEAD_LEN)?, at as u32) else {
            break;
        };
        if at + row.len() > size || pack::decode_record(&read(at, row.len() as usize)?).is_err() {
            break;
        }
        at += row.len();
        rows.push(row);
    }
    Ok((head, rows))
}

/// Every record of a damaged pack of `size` bytes that is whole, wherever it is: after a damaged one the next is looked
/// for byte by byte. Memory: one record.
///
/// # Errors
/// `read` failed.
pub(crate) fn scan(
    size: u64,
    read: &dyn Fn(u64, usize) -> Result<Vec<u8>, StoreError>,
) -> Result<Vec<Row>, StoreError> {
    let (mut rows, mut at) = (Vec::new(), HEAD_LEN as u64);
    while at < size {
        match record_at(at, size, read)? {
            Some(row) => {
                at += row.len();
                rows.push(row);
            }
            None => at = next_magic(at + 1, size, read)?,
        }
    }
    Ok(rows)
}

fn record_at(
    at: u64,
    size: u64,
    read: &dyn Fn(u64, usize) -> Result<Vec<u8>, StoreError>,
) -> Result<Option<Row>, StoreError> {
    let Ok((row, _)) = pack::decode_record_head(&read(at, pack::RECORD_HEAD_LEN)?, at as u32) else {
        return Ok(None);
    };
    if at + row.len() > size || pack::decode_record(&read(at, row.len() as usize)?).is_err() {
        return Ok(None);
    }
    Ok(Some(row))
}

/// Where the next record may begin; `size` when nowhere.
fn next_magic(
    from: u64,
    size: u64,
    read: &dyn Fn(u64, usize) -> Result<Vec<u8>, StoreError>,
) -> Result<u64, StoreError> {
    let mut at = from;
    while at < size {
        let block = read(at, SCAN_BLOCK)?;
        if let Some(found) =
            block.windows(pack::RECORD_MAGIC.len()).position(|bytes| bytes == pack::RECORD_MAGIC)
        {
            return Ok(at + found as u64);
        }
        if block.len() < SCAN_BLOCK {
            break;
        }
        // The magic may lie across two blocks.
        at += (SCAN_BLOCK - pack::RECORD_MAGIC.len() + 1) as u64;
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use backhaul_object::ids::VaultId;
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;
    use crate::pack::Class;

    /// What a full disk does: the header goes in, the body does not.
    #[test]
    fn a_record_that_does_not_fit_is_not_in_the_name_of_its_pack() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.pack");
        let mut pack = PackWriter::create(&path, &Head::of_nobody(Class::Data, VaultId([1; 16]))).unwrap();
        pack.append(Ordinal(1), b"header", b"body").unwrap();
        let full = File::from(memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap());
        full.set_len(pack.len() + 40).unwrap();
        fcntl_add_seals(&full, SealFlags::GROW).unwrap();
        let file = std::mem::replace(&mut pack.file, full);
        assert!(pack.append(Ordinal(2), b"header", &[7; 100]).is_err());
        let full = std::mem::replace(&mut pack.file, file);
        let mut written = [0; 4];
        full.read_exact_at(&mut written, pack.len()).unwrap();
        assert_eq!(written, *pack::RECORD_MAGIC, "the first part of it was written");
        let (_, name, len) = pack.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!((name, len), (PackId(*blake3::hash(&bytes).as_bytes()), bytes.len() as u64));
    }
}
