//! Marks as the catalog has them. A row is there only while it says what its file says.

use backhaul_object::ids::{ClientId, ObjectId};
use rusqlite::{OptionalExtension, params};

use super::{Catalog, get_u64};
use crate::error::StoreError;
use crate::mark::{Mark, State};

impl Catalog {
    /// All marks by client and sequence.
    ///
    /// # Errors
    /// SQLite.
    pub fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        // Whoever only looks does not migrate.
        let version: i64 = self.db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version < 2 {
            return Ok(Vec::new());
        }
        let mut statement = self.db.prepare_cached(
            "SELECT client, sequence, id, state, marked_at, night, grace, reason FROM marks
             ORDER BY client, sequence",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Mark {
                client: ClientId(row.get(0)?),
                sequence: get_u64(row, 1)?,
                id: ObjectId(row.get(2)?),
                state: State::from_number(row.get(3)?)
                    .ok_or(rusqlite::Error::IntegralValueOutOfRange(3, -1))?,
                marked_at: get_u64(row, 4)?,
                night: get_u64(row, 5)?,
                grace: get_u64(row, 6)?,
                reason: row.get(7)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The snapshot of a client with a number.
    ///
    /// # Errors
    /// SQLite.
    pub fn snapshot_id(&self, client: ClientId, sequence: u64) -> Result<Option<ObjectId>, StoreError> {
        let sql = "SELECT id FROM snapshots WHERE client = ?1 AND sequence = ?2";
        let mut statement = self.db.prepare_cached(sql)?;
        let id = statement.query_row(params![client.0, sequence as i64], |row| row.get(0)).optional()?;
        Ok(id.map(ObjectId))
    }

    /// The highest night of a mark.
    ///
    /// # Errors
    /// SQLite.
    pub fn newest_night(&self) -> Result<u64, StoreError> {
        let night: Option<i64> = self.db.query_row("SELECT max(night) FROM marks", [], |row| row.get(0))?;
        Ok(night.unwrap_or(0).unsigned_abs())
    }

    /// Drops what is known of a snapshot's mark: its file is about to change, or is gone.
    ///
    /// # Errors
    /// SQLite.
    pub fn drop_mark(&self, client: ClientId, sequence: u64) -> Result<(), StoreError> {
        let sql = "DELETE FROM marks WHERE client = ?1 AND sequence = ?2";
        self.db.prepare_cached(sql)?.execute(params![client.0, sequence as i64])?;
        Ok(())
    }

    /// Notes what a mark's file says.
    ///
    /// # Errors
    /// SQLite.
    pub fn note_mark(&self, mark: &Mark) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO marks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        self.db.prepare_cached(sql)?.execute(params![
            mark.client.0,
            mark.sequence as i64,
            mark.id.0,
            mark.state.number(),
            mark.marked_at as i64,
            mark.night as i64,
            mark.grace as i64,
            mark.reason
        ])?;
        Ok(())
    }
}
