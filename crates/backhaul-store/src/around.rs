//! Reading around bad sectors: what a disk cannot give any more counts as zeroes, and only that.
//!
//! Any other error says nothing about the bytes: too many open files, no leave, a folder that is not mounted. It is
//! handed on, and nobody may take what could not be read then for damaged.

use rustix::io::Errno;

use crate::blobs::Blobs;
use crate::error::StoreError;

/// Bytes that a disk loses at a time.
const SECTOR: usize = 4_096;

/// What file systems and drivers say of a sector, or of what leads to it, that does not fit its checksum or cannot be
/// read.
const MEDIUM: [Errno; 5] = [Errno::IO, Errno::NODATA, Errno::ILSEQ, Errno::BADMSG, Errno::UCLEAN];

/// True when the disk itself has lost what was asked for.
pub(crate) fn is_medium(error: &StoreError) -> bool {
    let StoreError::Io { source, .. } = error else { return false };
    source.raw_os_error().is_some_and(|code| MEDIUM.iter().any(|errno| errno.raw_os_error() == code))
}

/// [`Blobs::read_into`], with zeroes for sectors that are bad.
///
/// # Errors
/// Something else than the disk's surface failed.
pub(crate) fn read_into(
    blobs: &dyn Blobs,
    name: &str,
    offset: u64,
    out: &mut [u8],
) -> Result<usize, StoreError> {
    match blobs.read_into(name, offset, out) {
        Err(error) if is_medium(&error) => {}
        done => return done,
    }
    let rest = blobs.len(name)?.unwrap_or(0).saturating_sub(offset);
    let len = out.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
    let mut at = 0;
    while at < len {
        let to_edge = SECTOR - (offset + at as u64) as usize % SECTOR;
        let sector = &mut out[at..len.min(at + to_edge)];
        at += sector.len();
        match blobs.read_into(name, offset + (at - sector.len()) as u64, sector) {
            Err(error) if is_medium(&error) => sector.fill(0),
            done => drop(done?),
        }
    }
    Ok(len)
}

/// [`Blobs::read`], with zeroes for sectors that are bad.
///
/// # Errors
/// Something else than the disk's surface failed.
pub(crate) fn read(blobs: &dyn Blobs, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
    match blobs.read(name, offset, len) {
        Err(error) if is_medium(&error) => {}
        done => return done,
    }
    let rest = blobs.len(name)?.unwrap_or(0).saturating_sub(offset);
    let mut out = vec![0; len.min(usize::try_from(rest).unwrap_or(usize::MAX))];
    let n = read_into(blobs, name, offset, &mut out)?;
    out.truncate(n);
    Ok(out)
}
