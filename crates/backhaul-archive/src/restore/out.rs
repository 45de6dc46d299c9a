//! Where the bytes of one file go: into a new file, or against the one that is there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use super::Mode;
use super::fetch::{Engine, FileJob};
use super::place::{self, Comparer};
use crate::attributes::Others;

/// A file being written or compared; opened at the first byte, so that content which cannot be read at all
/// replaces nothing.
pub(super) struct Out<'o> {
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
    pub(super) fn new(dir: &'o OwnedFd, job: &'o FileJob, mode: Mode) -> Self {
        Self { dir, job, mode, open: None }
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
        if !self.job.is_large()
            && let Some(file) = place::create(self.dir, &self.job.name)?
        {
            return Ok(Opened::Direct(file));
        }
        let (file, part) = place::create_part(self.dir)?;
        Ok(Opened::Part(file, part))
    }

    /// Sets the metadata and puts the file into its place, or removes what is incomplete.
    pub(super) fn end(mut self, engine: &Engine<'_>, written: Result<(), String>) -> Result<(), String> {
        let (job, dir) = (self.job, self.dir);
        let result = written.and_then(|()| match self.opened() {
            Ok(Opened::Direct(file)) => dress(file, job, engine),
            Ok(Opened::Part(file, part)) => {
                dress(file, job, engine)?;
                place::put_in_place(dir, part, &job.name)
            }
            Ok(Opened::Old(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        });
        let left = match (&self.open, &result) {
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
    Ok(())
}

impl Write for Out<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.opened()? {
            Opened::Direct(file) | Opened::Part(file, _) => file.write(data),
            Opened::Old(comparer) => comparer.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
