//! Small files with secrets: written whole or not at all, readable by their owner only.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::NetError;

/// Replaces `path` by `bytes`, mode 0600, durable before the name appears.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), NetError> {
    let write = || {
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        let temporary = path.with_extension("tmp");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(parent)?.sync_all()
    };
    write()
        .map_err(|error: std::io::Error| NetError::File { path: path.to_path_buf(), why: error.to_string() })
}

/// Reads a file whole.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, NetError> {
    fs::read(path).map_err(|error| NetError::File { path: path.to_path_buf(), why: error.to_string() })
}
