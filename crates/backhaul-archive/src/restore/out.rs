//! Where the bytes of one file go: into a new file, into the one that is there, or against it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use super::compare::Comparer;
use super::fetch::{Engine, FileJob, Found};
use super::given::Given;
use super::{Mode, Replacing, part, place};
use crate::attributes::Others;
use crate::dump::Sink;
use crate::inode_flags;

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
    Direct(Given),
    /// Under another name until it is whole: whatever ends the restore, what was there stays.
    Part(Given, Vec<u8>),
    /// Into what is there.
    Within(Given),
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
                    return Ok(Opened::Direct(Given::fresh(file)));
                }
                None if self.job.found == Found::Nothing => return Err(io::Error::other(part::MEANWHILE)),
                None => {}
            }
        }
        let old = match self.job.found {
            Found::File(_) if self.engine.request.replacing == Replacing::InPlace => {
                Given::within(self.dir, &self.job.name)
            }
            _ => None,
        };
        if let Some(old) = old {
            self.flag(old.file());
            return Ok(Opened::Within(old));
        }
        let (file, part) = part::create_part(self.dir, self.job)?;
        self.flag(&file);
        let mut given = Given::new(file)?;
        if let (Found::File(_), Ok(old)) = (self.job.found, place::open_file(self.dir, &self.job.name)) {
            given.share(&old)?;
        }
        Ok(Opened::Part(given, part))
    }

    /// Some flags can be set only while a file is empty.
    fn flag(&self, file: &File) {
        let unset = inode_flags::write_flags(file, self.job.flags, self.job.of_folder);
        self.engine.report.unflagged(&self.job.path(), unset);
    }

    /// Sets the metadata and puts the file into its place, or removes what is incomplete.
    pub(super) fn end(mut self, written: Result<(), String>) -> Result<(), String> {
        let (engine, job, dir) = (self.engine, self.job, self.dir);
        let result = written.and_then(|()| match self.opened() {
            Ok(Opened::Direct(given)) => {
                dress(given.file(), job, engine)?;
                set_project(given.file(), job, engine);
                Ok(())
            }
            Ok(Opened::Within(given)) => {
                given.file().set_len(job.size).map_err(|error| error.to_string())?;
                dress(given.file(), job, engine)?;
                set_project(given.file(), job, engine);
                Ok(())
            }
            Ok(Opened::Part(given, part)) => {
                let file = given.file();
                // What was left of an earlier restore may have been longer.
                file.set_len(job.size).map_err(|error| error.to_string())?;
                dress(file, job, engine)?;
                part::put_file_in_place(dir, file, part, (&job.name, job.found), &|dir| {
                    engine.make_way(dir, &job.name, &job.path())
                })?;
                set_project(file, job, engine);
                Ok(())
            }
            Ok(Opened::Old(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        });
        let left = match (&self.open, &result) {
            // A later restore goes on with it.
            (Some(Opened::Part(..)), Err(_)) if engine.report.is_over().is_some() => return result,
            (Some(Opened::Within(_)), Err(why)) => {
                return Err(format!("{why}; it is half old and half new until it is restored again"));
            }
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
    if inode_flags::last_of(job.flags) != 0 {
        engine.report.flag_last(&job.path(), job.flags, rustix::fs::fstat(file).ok());
    }
    Ok(())
}

/// When it has its name.
fn set_project(file: &File, job: &FileJob, engine: &Engine<'_>) {
    engine.report.unflagged(&job.path(), inode_flags::write_project(file, job.flags, job.of_folder));
}

impl Sink for Out<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.opened()? {
            Opened::Direct(given) | Opened::Part(given, _) | Opened::Within(given) => {
                given.put(bytes).map(drop)
            }
            Opened::Old(comparer) => comparer.data(bytes),
        }
    }

    fn hole(&mut self, len: u64) -> io::Result<()> {
        let size = self.job.size;
        match self.opened()? {
            Opened::Direct(given) | Opened::Part(given, _) | Opened::Within(given) => given.hole(len, size),
            Opened::Old(comparer) => comparer.hole(len),
        }
    }
}
