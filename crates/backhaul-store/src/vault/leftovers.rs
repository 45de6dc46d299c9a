//! What a process that ended has left in `open/`, and of which the catalog does not know.

use std::time::UNIX_EPOCH;

use backhaul_object::ids::SessionId;

use crate::blobs::Blobs;
use crate::error::{Doing, StoreError};
use crate::pack::{self, HEAD_LEN, Head, RECORD_HEAD_LEN};
use crate::repair::put_aside;
use crate::vault::{Vault, open_name};

impl Vault {
    /// Takes such files out of the way: their numbers are given out again. What somebody may have been told to be there is put
    /// aside.
    pub(super) fn sweep_open(&self, is_newest: bool) -> Result<(), StoreError> {
        let spool = &self.shared.spool;
        let known: Vec<String> = self.state().writers.keys().map(|number| open_name(*number)).collect();
        for name in spool.list("open")?.into_iter().filter(|name| !known.contains(name)) {
            // What cannot be read now may be anything.
            if !self.is_worthless(&name, is_newest).unwrap_or(false) {
                let path = self.shared.root.join(&name);
                let written = path.metadata().and_then(|meta| meta.modified()).doing("examine", &path)?;
                // Nobody here knows the time, and it need not be known: it is kept for nights from now on, too.
                let since = written.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                put_aside(spool, &name, since)?;
            }
            spool.remove(&name)?;
        }
        Ok(())
    }

    /// Whether nobody relies on what is in a file. `is_newest`: the catalog is the one by which was acknowledged last.
    fn is_worthless(&self, name: &str, is_newest: bool) -> Result<bool, StoreError> {
        let spool = &self.shared.spool;
        let len = spool.len(name)?.unwrap_or(0) as usize;
        if len <= HEAD_LEN {
            return Ok(true);
        }
        // What reclaim moves is in its old pack, too, until the catalog knows the new one.
        if Head::decode(&spool.read(name, 0, HEAD_LEN)?).is_ok_and(|head| head.session == SessionId([0; 16]))
        {
            return Ok(true);
        }
        if !is_newest {
            return Ok(spool.read(name, HEAD_LEN as u64, len)?.iter().all(|byte| *byte == 0));
        }
        // New numbers are those of objects that were not acknowledged. What was lost and has come back has its old one, of which
        // the count says nothing.
        let (objects, mut at) = (self.state().index.objects(), HEAD_LEN as u64);
        while let Ok((row, _)) = pack::decode_record_head(&spool.read(name, at, RECORD_HEAD_LEN)?, at as u32)
        {
            if row.ordinal.0 < objects {
                return Ok(false);
            }
            at += row.len();
        }
        Ok(true)
    }
}
