//! What of a file is there already: in the file that it replaces, or in what an interrupted restore has left.

use std::fs::File;
use std::os::unix::fs::FileExt;

use backhaul_object::ObjectId;
use backhaul_object::header::PLAIN_MAX;
use backhaul_object::keys::IdKey;
use backhaul_object::seal::identify_content;
use bytes::Bytes;

use crate::dump::Near;

/// Files that are read where they may have the bytes wanted.
pub(super) struct Base {
    pub(super) key: IdKey,
    pub(super) files: Vec<File>,
}

impl Near for Base {
    fn find(&self, at: u64, id: ObjectId, len: u64) -> Option<Bytes> {
        let len = usize::try_from(len).ok().filter(|len| *len <= PLAIN_MAX)?;
        self.files.iter().find_map(|file| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at).ok()?;
            (identify_content(&self.key, &bytes).0 == id).then(|| bytes.into())
        })
    }
}
