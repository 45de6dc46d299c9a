//! Replacing a small file so that a crash leaves the old or the new one, never a part.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that appears under its name only when [`AtomicFile::commit`] has made it durable.
pub struct AtomicFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts a replacement of `path`; missing parent directories are made.
    ///
    /// # Errors
    /// The directory or the temporary file cannot be made.
    pub fn new(path: &Path) -> io::Result<Self> {
        let parent = path.parent().unwrap_or(Path::new("."));
        make_dirs(parent)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        let temporary = parent.join(name);
        Ok(Self { file: File::create(&temporary)?, temporary, path: path.to_path_buf() })
    }

    /// Writes, syncs, renames, syncs the directory.
    ///
    /// # Errors
    /// Any of these; the old file then still stands.
    pub fn commit(mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&self.temporary, &self.path)) {
            // On a full disk it would only be in the way.
            let _ = fs::remove_file(&self.temporary);
            return Err(error);
        }
        sync_parent(&self.path)
    }
}

/// Makes a directory and those above it that are missing, each durable: a file in it would else be lost with its name.
///
/// # Errors
/// One cannot be made or synced.
pub fn make_dirs(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    make_dirs(path.parent().unwrap_or(Path::new(".")))?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_parent(path).inspect_err(|_| {
        // Whoever comes next must not take it for durable.
        let _ = fs::remove_dir(path);
    })
}

/// Makes a rename or creation in the directory of `path` durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
