//! Zip, for those who have nothing else.

use std::io::{self, Write};

use backhaul_object::entry::{Body, Entry};
use backhaul_object::source::ObjectSource;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::{Archive, ExportError, LeftOut};
use crate::dump::dump_file;

/// From this size on, an entry has room for more than 4 GiB: what does not compress grows by a little.
const LARGE: u64 = 0xf000_0000;

pub(super) struct Zip<'a> {
    source: &'a dyn ObjectSource,
    writer: ZipWriter<StreamWriter<&'a mut dyn Write>>,
    left_out: Vec<LeftOut>,
}

impl<'a> Zip<'a> {
    pub(super) fn new(source: &'a dyn ObjectSource, out: &'a mut dyn Write) -> Self {
        Self { source, writer: ZipWriter::new_stream(out), left_out: Vec::new() }
    }

    pub(super) fn finish(self) -> io::Result<Vec<LeftOut>> {
        self.writer.finish()?;
        Ok(self.left_out)
    }
}

impl Archive for Zip<'_> {
    fn add(&mut self, name: &[u8], entry: &Entry) -> Result<(), ExportError> {
        let Ok(text) = std::str::from_utf8(name) else {
            self.left_out.push((name.to_vec(), "its name is not UTF-8"));
            return Ok(());
        };
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(entry.metadata.mode.into())
            .last_modified_time(time(entry.metadata.mtime_s));
        if !entry.attributes().is_empty() || !entry.inode_flags().is_none() {
            let why = "a zip archive has no attributes, inode flags and projects; all else of it is there";
            self.left_out.push((name.to_vec(), why));
        }
        match &entry.body {
            Body::Directory { .. } | Body::Folded(_) => {
                self.writer.add_directory(text, options).map_err(io::Error::from)?;
            }
            Body::File { size, .. } => {
                let options = options.large_file(*size >= LARGE);
                self.writer.start_file(text, options).map_err(io::Error::from)?;
                dump_file(self.source, entry, &mut self.writer)
                    .map_err(|why| ExportError::Content { path: name.to_vec(), why })?;
            }
            Body::Symlink(to) => match std::str::from_utf8(to) {
                Ok(to) => self.writer.add_symlink(text, to, options).map_err(io::Error::from)?,
                Err(_) => self.left_out.push((name.to_vec(), "where it leads is not UTF-8")),
            },
            Body::Special(_) => self.left_out.push((name.to_vec(), "a zip archive has no special files")),
        }
        Ok(())
    }
}

/// In UTC, between 1980 and 2107: there are no others.
fn time(seconds: i64) -> DateTime {
    let civil = Timestamp::from_second(seconds).map(|at| at.to_zoned(TimeZone::UTC).datetime());
    let field = |n: i8| n.unsigned_abs();
    let made = civil.ok().and_then(|at| {
        let year = u16::try_from(at.year()).ok()?;
        let (month, day) = (field(at.month()), field(at.day()));
        DateTime::from_date_and_time(
            year,
            month,
            day,
            field(at.hour()),
            field(at.minute()),
            field(at.second()),
        )
        .ok()
    });
    made.unwrap_or_default()
}
