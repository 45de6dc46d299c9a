//! What runs changed, and the brakes of clients that changed too much at once.

use std::collections::HashMap;

use backhaul_object::ids::ClientId;
use backhaul_schedule::brake::{Added, HISTORY, Profile};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Client, Fleet, alerts};
use crate::alerts::{Alert, AlertKind};
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

    /// The last run of each client that has a profile, by its snapshot's number; 0 of one that has none.
    ///
    /// # Errors
    /// SQLite.
    pub fn judged(&self) -> Result<HashMap<ClientId, u64>, ServerError> {
        let sql = "SELECT id, ifnull((SELECT max(sequence) FROM profiles WHERE client = id), 0) FROM clients";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((ClientId(row.get(0)?), count(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes what a run changed with all its sessions, and the brake that it trips with the alert, unless that is tripped
    /// already: all of it or nothing. Older profiles than are looked back at are removed.
    ///
    /// # Errors
    /// SQLite.
    pub fn note_run(
        &mut self,
        client: &Client,
        profile: &Profile,
        tripped: Option<&Brake>,
    ) -> Result<(), ServerError> {
        let tx = self.db.transaction()?;
        add_profile(&tx, client.id, profile)?;
        // A snapshot has been made of it.
        tx.execute("DELETE FROM unfinished WHERE client = ?1", params![client.id.0])?;
        if let Some(brake) = tripped {
            trip(&tx, client, brake)?;
        }
        Ok(tx.commit()?)
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

    /// Releases a client's brake: what its runs changed until now is usual from now on. False when it was not tripped.
    ///
    /// # Errors
    /// SQLite.
    pub fn release_brake(&self, client: ClientId) -> Result<bool, ServerError> {
        Ok(self.db.execute("DELETE FROM brakes WHERE client = ?1", params![client.0])? > 0)
    }
}

fn add_profile(tx: &Transaction<'_>, client: ClientId, profile: &Profile) -> rusqlite::Result<()> {
    let Profile { sequence, files, files_new, files_changed, bytes, added } = *profile;
    let counts = [sequence, files, files_new, files_changed, bytes, added.bytes, added.packed];
    let [a, b, c, d, e, f, g] = counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    tx.execute(
        "INSERT OR REPLACE INTO profiles VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![client.0, a, b, c, d, e, f, g],
    )?;
    tx.execute(
        "DELETE FROM profiles WHERE client = ?1 AND sequence <= ?2",
        params![client.0, a.saturating_sub(4 * HISTORY as i64)],
    )?;
    Ok(())
}

fn trip(tx: &Transaction<'_>, client: &Client, brake: &Brake) -> rusqlite::Result<()> {
    let tripped = tx.execute(
        "INSERT INTO brakes (client, sequence, since, why) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        params![client.id.0, brake.sequence as i64, brake.since as i64, brake.why],
    )?;
    if tripped > 0 {
        let (why, name) = (&brake.why, &client.name);
        let text = format!("{why}: nothing of {name} is forgotten or reclaimed until you have looked");
        let (kind, client) = (AlertKind::Brake, Some(client.id));
        let alert = Alert { kind, client, group: None, text, obstacle: String::new() };
        alerts::raise(tx, &alert, brake.since)?;
    }
    Ok(())
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
