//! What keeps objects that no snapshot reaches: sessions that have not committed, proofs, resurrection.

use std::collections::{BTreeMap, HashSet};

use backhaul_object::ids::{ClientId, SessionId};
use rusqlite::{Transaction, params};

use super::{Catalog, Proven, SnapshotRow, get_u64, put_snapshot};
use crate::error::StoreError;
use crate::index::Ordinal;

/// A session whose objects no snapshot has yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// For whom it wrote.
    pub client: ClientId,
    /// Marks that were finished when it began to write.
    pub epoch: u64,
}

/// What is written down together with the objects it is about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims<'a> {
    /// Marks finished until now.
    pub epoch: u64,
    /// Possessions shown since the last flush.
    pub proven: &'a [Proven],
    /// Sessions whose objects no snapshot has yet.
    pub uploads: Option<&'a BTreeMap<SessionId, Upload>>,
    /// Condemned objects that are needed again.
    pub resurrected: &'a [Ordinal],
}

impl Claims<'_> {
    pub(super) fn write(&self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        let epoch = self.epoch as i64;
        for item in self.proven {
            let member = item.member.map_or(-1, i64::from);
            let sql =
                "INSERT OR REPLACE INTO proven (client, ordinal, member, epoch) VALUES (?1, ?2, ?3, ?4)";
            let ordinal = item.ordinal.0 as i64;
            tx.prepare_cached(sql)?.execute(params![item.client.0, ordinal, member, epoch])?;
        }
        for (session, upload) in self.uploads.into_iter().flatten() {
            let sql = "INSERT OR REPLACE INTO uploads VALUES (?1, ?2, ?3)";
            tx.prepare_cached(sql)?.execute(params![session.0, upload.client.0, upload.epoch as i64])?;
        }
        for ordinal in self.resurrected {
            let sql = "INSERT OR IGNORE INTO resurrected VALUES (?1, ?2)";
            tx.prepare_cached(sql)?.execute(params![epoch, ordinal.0 as i64])?;
        }
        Ok(())
    }
}

/// A snapshot of this client has been made: it reaches what is needed of earlier uploads.
pub(super) fn covered(tx: &Transaction<'_>, client: ClientId) -> Result<(), StoreError> {
    tx.execute("DELETE FROM uploads WHERE client = ?1", params![client.0])?;
    Ok(())
}

impl Catalog {
    /// Sessions whose objects no snapshot has yet.
    ///
    /// # Errors
    /// SQLite.
    pub fn uploads(&self) -> Result<BTreeMap<SessionId, Upload>, StoreError> {
        let mut statement = self.db.prepare("SELECT session, client, epoch FROM uploads")?;
        let rows = statement.query_map([], |row| {
            let upload = Upload { client: ClientId(row.get(1)?), epoch: get_u64(row, 2)? };
            Ok((SessionId(row.get(0)?), upload))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Everything that any client has proven since its last snapshot, by proofs of epoch `since` or later.
    ///
    /// # Errors
    /// SQLite.
    pub fn all_proven(&self, since: u64) -> Result<HashSet<Ordinal>, StoreError> {
        let mut statement = self.db.prepare("SELECT DISTINCT ordinal FROM proven WHERE epoch >= ?1")?;
        let rows = statement.query_map(params![since as i64], |row| Ok(Ordinal(get_u64(row, 0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What was resurrected in an epoch.
    ///
    /// # Errors
    /// SQLite.
    pub fn resurrected(&self, epoch: u64) -> Result<Vec<Ordinal>, StoreError> {
        let mut statement = self.db.prepare("SELECT ordinal FROM resurrected WHERE epoch = ?1")?;
        let rows = statement.query_map(params![epoch as i64], |row| Ok(Ordinal(get_u64(row, 0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Forgets claims from before `since`, and resurrections from before `epoch`.
    ///
    /// # Errors
    /// SQLite.
    pub fn expire(&mut self, since: u64, epoch: u64) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        tx.execute("DELETE FROM proven WHERE epoch < ?1", params![since as i64])?;
        tx.execute("DELETE FROM uploads WHERE epoch < ?1", params![since as i64])?;
        tx.execute("DELETE FROM resurrected WHERE epoch < ?1", params![epoch as i64])?;
        tx.commit()?;
        Ok(())
    }

    /// Gives a snapshot its row back: its manifest could not be removed.
    ///
    /// # Errors
    /// SQLite.
    pub fn put_back(&self, row: &SnapshotRow) -> Result<(), StoreError> {
        put_snapshot(&self.db, row)
    }

    /// Takes a snapshot's row away: its manifest goes next.
    ///
    /// # Errors
    /// SQLite.
    pub fn remove_snapshot(&self, client: ClientId, sequence: u64) -> Result<(), StoreError> {
        let sql = "DELETE FROM snapshots WHERE client = ?1 AND sequence = ?2";
        self.db.execute(sql, params![client.0, sequence as i64])?;
        Ok(())
    }
}
