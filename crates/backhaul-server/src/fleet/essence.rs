//! What of the fleet must survive the loss of this database: copied whole, and when it has changed.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params};

use super::Fleet;
use crate::error::ServerError;

/// Under this name the essence of the last export is kept, with the keys.
const EXPORTED: &str = "exported";
/// What an operator or an enrolment has changed; not what runs change every minute.
const ESSENCE: [&str; 3] = [
    "SELECT id, name, initiator, address, vault, policy, state, agent_key, listener_key, owner FROM clients ORDER BY id",
    "SELECT id, used_at FROM invitations ORDER BY id",
    "SELECT version, resumed FROM policy_versions ORDER BY version",
];

impl Fleet {
    /// A digest that changes with clients, invitations and policies.
    ///
    /// # Errors
    /// SQLite.
    pub fn essence(&self) -> Result<[u8; 32], ServerError> {
        let mut hasher = blake3::Hasher::new();
        for sql in ESSENCE {
            let mut statement = self.db.prepare_cached(sql)?;
            let columns = statement.column_count();
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                for column in 0..columns {
                    let value: Value = row.get(column)?;
                    hasher.update(format!("{value:?};").as_bytes());
                }
            }
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// The essence of the last export.
    ///
    /// # Errors
    /// SQLite.
    pub fn exported(&self) -> Result<Option<[u8; 32]>, ServerError> {
        let sql = "SELECT key FROM keys WHERE name = ?1";
        Ok(self.db.query_row(sql, params![EXPORTED], |row| row.get(0)).optional()?)
    }

    /// Notes what was exported.
    ///
    /// # Errors
    /// SQLite.
    pub fn note_exported(&self, essence: &[u8; 32]) -> Result<(), ServerError> {
        self.db.execute(
            "INSERT INTO keys VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET key = ?2",
            params![EXPORTED, essence],
        )?;
        Ok(())
    }

    /// Copies the whole database, as it is at one moment, to a file that is replaced.
    ///
    /// # Errors
    /// SQLite, or the file cannot be written.
    pub fn copy_to(&self, path: &Path) -> Result<(), ServerError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ServerError::File { path: path.into(), why: error.to_string() });
            }
            _ => {}
        }
        self.db.execute("VACUUM INTO ?1", params![path.to_string_lossy()])?;
        Ok(())
    }
}
