//! What runs changed, and the brakes of clients that changed too much at once.

use backhaul_object::ids::ClientId;
use backhaul_schedule::brake::{Added, HISTORY, Profile};
use rusqlite::{OptionalExtension, Row, params};

use super::Fleet;
use crate::error::ServerError;

/// Why nothing of a client is forgotten or reclaimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brake {
    /// The run that tripped it, by its snapshot's number.
    pub sequence: u64,
    /// Seconds since 1970.
    pub since: u64,
    /// What is unusual, in words.
    pub why: String,
}

impl Fleet {
    /// The profiles of a client's usual runs, oldest first.
    ///
    /// # Errors
    /// SQLite.
    pub fn profiles(&self, client: ClientId) -> Result<Vec<Profile>, ServerError> {
        let mut statement = self.db.prepare_cached(
            "SELECT sequence, files, files_new, files_changed, bytes, bytes_new, bytes_packed FROM profiles
             WHERE client = ?1 ORDER BY sequence DESC LIMIT ?2",
        )?;
        let rows = statement.query_map(params![client.0, HISTORY as i64], profile)?;
        let mut profiles: Vec<Profile> = rows.collect::<Result<_, _>>()?;
        profiles.reverse();
        Ok(profiles)
    }

    /// Adds what a run changed; older ones than are looked back at are removed.
    ///
    /// # Errors
    /// SQLite.
    pub fn add_profile(&self, client: ClientId, profile: &Profile) -> Result<(), ServerError> {
        let Profile { sequence, files, files_new, files_changed, bytes, added } = *profile;
        let counts = [sequence, files, files_new, files_changed, bytes, added.bytes, added.packed];
        let [a, b, c, d, e, f, g] = counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        self.db.execute(
            "INSERT OR REPLACE INTO profiles VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![client.0, a, b, c, d, e, f, g],
        )?;
        self.db.execute(
            "DELETE FROM profiles WHERE client = ?1 AND sequence <= ?2",
            params![client.0, a.saturating_sub(4 * HISTORY as i64)],
        )?;
        Ok(())
    }

    /// Remembers what a session has added that did not come to a snapshot.
    ///
    /// # Errors
    /// SQLite.
    pub fn add_unfinished(&self, client: ClientId, added: Added) -> Result<(), ServerError> {
        let total = self.unfinished(client)? + added;
        let [bytes, packed] = [total.bytes, total.packed].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        let sql = "INSERT OR REPLACE INTO unfinished VALUES (?1, ?2, ?3)";
        self.db.execute(sql, params![client.0, bytes, packed])?;
        Ok(())
    }

    /// What a client's sessions have added since its last snapshot, without the one that is under way.
    ///
    /// # Errors
    /// SQLite.
    pub fn unfinished(&self, client: ClientId) -> Result<Added, ServerError> {
        let sql = "SELECT bytes_new, bytes_packed FROM unfinished WHERE client = ?1";
        let added = |row: &Row<'_>| Ok(Added { bytes: count(row, 0)?, packed: count(row, 1)? });
        let found = self.db.prepare_cached(sql)?.query_row(params![client.0], added).optional()?;
        Ok(found.unwrap_or_default())
    }

    /// A snapshot has been made of it.
    ///
    /// # Errors
    /// SQLite.
    pub fn forget_unfinished(&self, client: ClientId) -> Result<(), ServerError> {
        self.db.execute("DELETE FROM unfinished WHERE client = ?1", params![client.0])?;
        Ok(())
    }

    /// A client's brake, if it is tripped.
    ///
    /// # Errors
    /// SQLite.
    pub fn brake(&self, client: ClientId) -> Result<Option<Brake>, ServerError> {
        let sql = "SELECT sequence, since, why FROM brakes WHERE client = ?1";
        Ok(self.db.prepare_cached(sql)?.query_row(params![client.0], brake).optional()?)
    }

    /// All brakes that are tripped.
    ///
    /// # Errors
    /// SQLite.
    pub fn brakes(&self) -> Result<Vec<(ClientId, Brake)>, ServerError> {
        let mut statement = self.db.prepare_cached("SELECT sequence, since, why, client FROM brakes")?;
        let rows = statement.query_map([], |row| Ok((ClientId(row.get(3)?), brake(row)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Trips a client's brake; one that is tripped stays as it is.
    ///
    /// # Errors
    /// SQLite.
    pub fn trip_brake(&self, client: ClientId, brake: &Brake) -> Result<bool, ServerError> {
        let tripped = self.db.execute(
            "INSERT INTO brakes (client, sequence, since, why) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![client.0, brake.sequence as i64, brake.since as i64, brake.why],
        )?;
        Ok(tripped > 0)
    }

    /// Releases a client's brake: what its runs changed until now is usual from now on. False when it was not tripped.
    ///
    /// # Errors
    /// SQLite.
    pub fn release_brake(&self, client: ClientId) -> Result<bool, ServerError> {
        Ok(self.db.execute("DELETE FROM brakes WHERE client = ?1", params![client.0])? > 0)
    }
}

fn brake(row: &Row<'_>) -> rusqlite::Result<Brake> {
    Ok(Brake {
        sequence: row.get::<_, i64>(0)? as u64,
        since: row.get::<_, i64>(1)? as u64,
        why: row.get(2)?,
    })
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|count| count as u64)
}

fn profile(row: &Row<'_>) -> rusqlite::Result<Profile> {
    Ok(Profile {
        sequence: count(row, 0)?,
        files: count(row, 1)?,
        files_new: count(row, 2)?,
        files_changed: count(row, 3)?,
        bytes: count(row, 4)?,
        added: Added { bytes: count(row, 5)?, packed: count(row, 6)? },
    })
}
