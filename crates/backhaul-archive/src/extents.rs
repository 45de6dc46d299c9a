//! Where a file has data, and where holes: as its file system says.

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// A run of bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// To be read.
    Data(u64),
    /// Zeros that nobody need read.
    Hole(u64),
}

/// What begins at `at`, and ends before `end`; none at the end. Moves the file's own position.
pub(crate) fn next(file: &File, at: u64, end: u64) -> io::Result<Option<Extent>> {
    if at >= end {
        return Ok(None);
    }
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.clamp(at, end),
        // Nothing but a hole follows.
        Err(Errno::NXIO) => end,
        // A file system that has no holes.
        Err(Errno::INVAL) => return Ok(Some(Extent::Data(end - at))),
        Err(error) => return Err(error.into()),
    };
    if data > at {
        return Ok(Some(Extent::Hole(data - at)));
    }
    let hole = match seek(file, SeekFrom::Hole(at)) {
        Ok(hole) => hole.clamp(at, end),
        // It was cut off meanwhile: reading will show it.
        Err(Errno::NXIO) => end,
        Err(error) => return Err(error.into()),
    };
    // Data of no length would never end: it has turned into a hole between the two looks.
    Ok(Some(Extent::Data(if hole > at { hole - at } else { end - at })))
}

/// Whether a file of `size` bytes that takes less `room` on disk has holes indeed. One look at the file system, and
/// for most files none.
pub(crate) fn has_holes(file: &File, size: u64, room: u64) -> bool {
    room < size && matches!(next(file, 0, size), Ok(Some(first)) if first != Extent::Data(size))
}
