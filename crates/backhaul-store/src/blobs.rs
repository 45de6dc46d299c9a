//! The backend seam: named immutable byte strings. No rename and no append, so that an object store fits.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::around;
use crate::atomic::{AtomicFile, make_dirs, sync_parent};
use crate::error::{Doing, StoreError};

/// Files kept open for reading.
const HANDLES_MAX: usize = 128;
/// Bytes copied at once.
const COPY_BLOCK: usize = 1 << 20;

/// Where sealed packs and manifests live.
pub trait Blobs: Send + Sync {
    /// Stores bytes durably under a name; replaces what is there.
    ///
    /// # Errors
    /// The backend refused.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Takes over a finished, synced local file under a name. What cannot be made durable is undone, unless it took the place of
    /// another.
    ///
    /// # Errors
    /// The backend refused.
    fn adopt(&self, file: &Path, name: &str) -> Result<(), StoreError>;

    /// Bytes `offset..offset + len`; shorter at the end.
    ///
    /// # Errors
    /// No such blob, or it cannot be read.
    fn read(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError>;

    /// Fills a buffer from `offset`; returns how many bytes there were.
    ///
    /// # Errors
    /// No such blob, or it cannot be read.
    fn read_into(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<usize, StoreError>;

    /// Keeps what is under a name under another one, too. False when something is there already: that stays, and this was
    /// not kept.
    ///
    /// # Errors
    /// The backend refused.
    fn keep_as(&self, name: &str, copy: &str) -> Result<bool, StoreError>;

    /// Removes a blob; one that is not there is no error.
    ///
    /// # Errors
    /// The backend refused.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// Says that a stretch will be read soon. Nobody has to listen.
    fn will_read(&self, _name: &str, _offset: u64, _len: u64) {}

    /// Length in bytes, if it is there.
    ///
    /// # Errors
    /// The backend cannot tell.
    fn len(&self, name: &str) -> Result<Option<u64>, StoreError>;

    /// All names that begin with a directory prefix, sorted.
    ///
    /// # Errors
    /// The backend cannot list.
    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
}

/// A local directory.
pub struct LocalBlobs {
    root: PathBuf,
    handles: Mutex<HashMap<String, Arc<File>>>,
    /// Names that are being written: a second writer waits, for they would share a temporary file.
    busy: Mutex<HashSet<String>>,
    done: Condvar,
}

impl LocalBlobs {
    /// Names become paths under `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            handles: Mutex::default(),
            busy: Mutex::default(),
            done: Condvar::new(),
        }
    }

    fn handle(&self, name: &str) -> Result<Arc<File>, StoreError> {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = handles.get(name) {
            return Ok(Arc::clone(file));
        }
        let path = self.root.join(name);
        let file = Arc::new(File::open(&path).doing("open", &path)?);
        if handles.len() >= HANDLES_MAX {
            handles.clear();
        }
        handles.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    /// What is under the name now is another file.
    fn forget(&self, name: &str) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The directory of a new file, made durably if it is missing.
    fn make_parent(&self, path: &Path) -> Result<(), StoreError> {
        let parent = path.parent().unwrap_or(&self.root);
        make_dirs(parent).doing("create", parent)?;
        Ok(())
    }

    /// Makes a copy under another name, durably, with zeroes for what the disk has lost of it.
    fn copy(&self, name: &str, copy: &Path) -> Result<(), StoreError> {
        let mut temporary = copy.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = File::create(&temporary).doing("create", &temporary)?;
        let (mut at, mut block) = (0, vec![0; COPY_BLOCK]);
        loop {
            let n = around::read_into(self, name, at, &mut block)?;
            file.write_all_at(&block[..n], at).doing("write", &temporary)?;
            at += n as u64;
            if n < block.len() {
                break;
            }
        }
        file.sync_all().doing("sync", &temporary)?;
        fs::rename(&temporary, copy).doing("move into place", copy)
    }
}

impl Blobs for LocalBlobs {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.done.wait_while(busy, |busy| busy.contains(name));
        waited.unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        let written = AtomicFile::new(&path).and_then(|file| file.commit(bytes)).doing("write", &path);
        self.forget(name);
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.done.notify_all();
        written
    }

    fn adopt(&self, file: &Path, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        self.make_parent(&path)?;
        let is_new = !path.exists();
        fs::rename(file, &path).doing("move into place", &path)?;
        self.forget(name);
        let synced = sync_parent(&path).doing("sync the directory of", &path);
        if synced.is_err() && is_new {
            // Whoever tries again must not find it done. What took another's place stays: without it nothing would be there.
            let _ = fs::rename(&path, file);
            self.forget(name);
        }
        synced
    }

    fn keep_as(&self, name: &str, copy: &str) -> Result<bool, StoreError> {
        let (path, copy) = (self.root.join(name), self.root.join(copy));
        self.make_parent(&copy)?;
        match fs::hard_link(&path, &copy) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
            // Some file systems have no links.
            Err(_) if copy.exists() => return Ok(false),
            Err(_) => self.copy(name, &copy)?,
            Ok(()) => {}
        }
        sync_parent(&copy).doing("sync the directory of", &copy).map(|()| true)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root.join(name);
        self.forget(name);
        let removed = match fs::remove_file(&path) {
            // Whoever removed it may have ended before that was durable.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match sync_parent(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                synced => return synced.doing("sync the directory of", &path),
            },
            removed => removed,
        };
        removed.doing("remove", &path)?;
        sync_parent(&path).doing("sync the directory of", &path)
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let file = self.handle(name)?;
        let path = self.root.join(name);
        let size = file.metadata().doing("examine", &path)?.len();
        let len = len.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut out = vec![0; len];
        file.read_exact_at(&mut out, offset).doing("read", &path)?;
        Ok(out)
    }

    fn read_into(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<usize, StoreError> {
        let file = self.handle(name)?;
        let mut filled = 0;
        while filled < out.len() {
            match file.read_at(&mut out[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing("read", &self.root.join(name)),
            }
        }
        Ok(filled)
    }

    fn will_read(&self, name: &str, offset: u64, len: u64) {
        if let (Ok(file), Some(len)) = (self.handle(name), NonZeroU64::new(len)) {
            // Only a hint: what goes wrong here is told by the read.
            let _ = rustix::fs::fadvise(&*file, offset, Some(len), rustix::fs::Advice::WillNeed);
        }
    }

    fn len(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let path = self.root.join(name);
        match fs::metadata(&path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing("examine", &path),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let mut open = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(directory) = open.pop() {
            let path = self.root.join(&directory);
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).doing("list", &path),
            };
            for entry in entries {
                let entry = entry.doing("list", &path)?;
                let name = format!("{directory}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().doing("examine", &entry.path())?.is_dir() {
                    open.push(name);
                } else if !name.ends_with(".tmp") {
                    names.push(name);
                }
            }
        }
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// As where there are no links.
    #[test]
    fn a_copy_has_all_bytes_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::new(dir.path());
        let bytes: Vec<u8> = (0..3 * COPY_BLOCK + 7).map(|n| (n / 11) as u8).collect();
        blobs.put("packs/ab/x", &bytes).unwrap();
        fs::create_dir(dir.path().join("quarantine")).unwrap();
        blobs.copy("packs/ab/x", &dir.path().join("quarantine/77.1-x")).unwrap();
        assert!(fs::read(dir.path().join("quarantine/77.1-x")).unwrap() == bytes);
        assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 1);
    }

    /// A sidecar may be made by two at once; whoever is last wins, and nobody fails.
    #[test]
    fn writers_of_one_name_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::new(dir.path());
        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let blobs = &blobs;
                scope
                    .spawn(move || (0..50).for_each(|_| blobs.put("parity/ab/x", &[writer; 9_000]).unwrap()));
            }
        });
        let bytes = blobs.read("parity/ab/x", 0, 10_000).unwrap();
        assert!(bytes.len() == 9_000 && bytes.iter().all(|byte| *byte == bytes[0]));
    }
}
