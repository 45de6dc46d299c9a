//! Where the bytes of one file go: into a new file, or against the one that is there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use super::Mode;
use super::fetch::{Engine, FileJob};
use super::place::{self, Comparer};

/// A file being written or compared; opened at the first byte, so that content which cannot be read at all
/// replaces nothing.
pub(super) struct Out<'o> {
    dir: &'o OwnedFd,
    job: &'o FileJob,
    mode: Mode,
    open: Option<Opened>,
}

enum Opened {
    New(File),
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
                Mode::Write => {
                    Opened::New(place::create(self.dir, &self.job.name).map_err(io::Error::other)?)
                }
                Mode::Compare => Opened::Old(Comparer::open(self.dir, &self.job.name, self.job.size)?),
            },
        };
        Ok(self.open.insert(opened))
    }

    /// Sets the metadata, or removes what is incomplete.
    pub(super) fn end(mut self, engine: &Engine<'_>, written: Result<(), String>) -> Result<(), String> {
        let job = self.job;
        let result = written.and_then(|()| match self.opened() {
            Ok(Opened::New(file)) => match place::apply(&*file, &job.metadata) {
                Ok(true) => Ok(()),
                Ok(false) => {
                    engine.report.unowned();
                    Ok(())
                }
                Err(error) => Err(format!("metadata not set: {error}")),
            },
            Ok(Opened::Old(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        });
        if result.is_err() && matches!(self.open, Some(Opened::New(_))) {
            return match place::clear(self.dir, &self.job.name) {
                Ok(()) => result,
                Err(why) => result.map_err(|error| format!("{error}; incomplete, and {why}")),
            };
        }
        result
    }
}

impl Write for Out<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.opened()? {
            Opened::New(file) => file.write(data),
            Opened::Old(comparer) => comparer.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
