//! A file, or all of a folder as one archive, written to a stream.
//!
//! Names in an archive are relative to the folder. What its form has no place for is left out and named: in
//! [`tar`](Form::Tar) sockets, inode flags and projects; in [`zip`](Form::Zip) all special files and attributes as well. No zip has
//! owners, or says which names are one file's.

use std::io::{self, Write};

use backhaul_object::entry::Entry;
use backhaul_object::source::ObjectSource;
use thiserror::Error;

use crate::browse::{BrowseError, Located, Tree, absolute};
use crate::dump::DumpError;

mod tar;
mod zip;

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// POSIX tar with pax records: links, owners, times to the nanosecond, attributes.
    Tar,
    /// Zip with deflate.
    Zip,
}

/// Why an archive is not whole.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The snapshot cannot be read.
    #[error(transparent)]
    Browse(#[from] BrowseError),
    /// The content of a file cannot be read.
    #[error("{}: {why}", String::from_utf8_lossy(path))]
    Content {
        /// Which.
        path: Vec<u8>,
        /// Why.
        why: DumpError,
    },
    /// The archive cannot be written.
    #[error("the archive cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Something that an archive does not hold.
pub type LeftOut = (Vec<u8>, &'static str);

/// Takes what a walk comes to.
trait Archive {
    fn add(&mut self, name: &[u8], entry: &Entry) -> Result<(), ExportError>;
}

/// Writes all that is at or below a path; returns what is left out.
///
/// # Errors
/// [`ExportError`]; the archive is not whole then.
pub fn export(
    source: &dyn ObjectSource,
    tree: &Tree<'_>,
    path: &[u8],
    form: Form,
    out: &mut dyn Write,
) -> Result<Vec<LeftOut>, ExportError> {
    match form {
        Form::Tar => {
            let mut archive = tar::Tar::new(source, out);
            walk(tree, path, &mut archive)?;
            Ok(archive.finish()?)
        }
        Form::Zip => {
            let mut archive = zip::Zip::new(source, out);
            walk(tree, path, &mut archive)?;
            Ok(archive.finish()?)
        }
    }
}

fn walk(tree: &Tree<'_>, path: &[u8], archive: &mut dyn Archive) -> Result<(), ExportError> {
    let mut failed = None;
    let whole = absolute(path);
    let above = match tree.lookup(path)? {
        Located::Entry(entry) if !entry.is_folder() => whole.len() - entry.name.len() - 1,
        _ => whole.len(),
    };
    let walked = tree.walk(path, &mut |full, entry| {
        let name = full.get(above + 1..).unwrap_or_default();
        archive.add(name, entry).map_err(|error| {
            let why = error.to_string();
            failed = Some(error);
            BrowseError::Stopped { path: full.to_vec(), why }
        })
    });
    match (failed, walked) {
        (Some(error), _) => Err(error),
        (None, walked) => Ok(walked?),
    }
}
