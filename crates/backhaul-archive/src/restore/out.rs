//! Where the bytes of one file go: into a new file, or against the one that is there.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, fallocate};

use super::Mode;
use super::compare::Comparer;
use super::fetch::{Engine, FileJob, Found};
use super::{part, place};
use crate::attributes::Others;
use crate::dump::Sink;
use crate::flags;

/// A file being written or compared; opened at the first byte, so that content which cannot be read at all
/// replaces nothing.
pub(super) struct Out<'o> {
    engine: &'o Engine<'o>,
    dir: &'o OwnedFd,
    job: &'o FileJob,
    mode: Mode,
    open: Option<Opened>,
}

enum Opened {
    /// Under its own name: a small file where nothing was, whole within a moment.
    Direct(File),
    /// Under another name until it is whole: whatever ends the restore, what was there stays.
    Part(File, Vec<u8>),
    Old(Comparer),
}

impl<'o> Out<'o> {
    pub(super) fn new(engine: &'o Engine<'o>, dir: &'o OwnedFd, job: &'o FileJob, mode: Mode) -> Self {
        Self { engine, dir, job, mode, open: None }
    }

    fn opened(&mut self) -> io::Result<&mut Opened> {
        let opened = match self.open.take() {
            Some(opened) => opened,
            None => match self.mode {
                Mode::Write => self.create()?,
                Mode::Compare => Opened::Old(Comparer::open(self.dir, &self.job.name, self.job.size)?),
            },
        };
        Ok(self.open.insert(opened))
    }

    fn create(&self) -> io::Result<Opened> {
        if !self.job.is_large() {
            match place::create(self.dir, &self.job.name)? {
                Some(file) => {
                    self.flag(&file);
                    return Ok(Opened::Direct(file));
                }
                None if self.job.found == Found::Nothing => return Err(io::Error::other(part::MEANWHILE)),
                None => {}
            }
        }
        let (file, part) = part::create_part(self.dir, self.job)?;
        self.flag(&file);
        Ok(Opened::Part(file, part))
    }

    /// Some flags can be set only while a file is empty.
    fn flag(&self, file: &File) {
        let set = flags::write(file, self.job.flags, self.job.of_folder);
        self.engine.report.flagged(&self.job.path(), self.job.flags, set);
    }

    /// Sets the metadata and puts the file into its place, or removes what is incomplete.
    pub(super) fn end(mut self, written: Result<(), String>) -> Result<(), String> {
        let (engine, job, dir) = (self.engine, self.job, self.dir);
        let result = written.and_then(|()| match self.opened() {
            Ok(Opened::Direct(file)) => dress(file, job, engine),
            Ok(Opened::Part(file, part)) => {
                // What was left of an earlier restore may have been longer.
                file.set_len(job.size).map_err(|error| error.to_string())?;
                dress(file, job, engine)?;
                part::put_file_in_place(dir, file, part, (&job.name, job.found), &|dir| {
                    engine.make_way(dir, &job.name, &job.path())
                })
            }
            Ok(Opened::Old(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        });
        let left = match (&self.open, &result) {
            // A later restore goes on with it.
            (Some(Opened::Part(..)), Err(_)) if engine.report.is_over().is_some() => return result,
            (Some(Opened::Direct(_)), Err(_)) => &job.name,
            (Some(Opened::Part(_, part)), Err(_)) => part,
            _ => return result,
        };
        match place::clear(dir, left) {
            Ok(()) => result,
            Err(why) => result.map_err(|error| format!("{error}; incomplete, and {why}")),
        }
    }
}

fn dress(file: &File, job: &FileJob, engine: &Engine<'_>) -> Result<(), String> {
    let missed = place::apply(file, &job.metadata, Some((&job.attributes, Others::Go)))
        .map_err(|error| format!("metadata not set: {error}"))?;
    engine.report.missed(&job.path(), missed);
    if flags::last_of(job.flags) != 0 {
        engine.report.flag_last(&job.path(), job.flags, rustix::fs::fstat(file).ok());
    }
    Ok(())
}

impl Sink for Out<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.opened()? {
            Opened::Direct(file) | Opened::Part(file, _) => file.write_all(bytes),
            Opened::Old(comparer) => comparer.data(bytes),
        }
    }

    fn hole(&mut self, len: u64) -> io::Result<()> {
        match self.opened()? {
            Opened::Direct(file) | Opened::Part(file, _) => {
                let (at, old) = (file.stream_position()?, file.metadata()?.len());
                let end = at.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
                if at < old {
                    // Of an earlier restore. Where no hole can be made, the rest of it goes.
                    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    fallocate(&*file, how, at, len.min(old - at)).or_else(|_| file.set_len(at))?;
                }
                // Nothing else may follow that makes the file so long.
                file.set_len(end.max(file.metadata()?.len()))?;
                file.seek(SeekFrom::Start(end)).map(drop)
            }
            Opened::Old(comparer) => comparer.hole(len),
        }
    }
}
