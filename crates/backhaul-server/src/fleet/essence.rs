//! What of the fleet must survive the loss of this database: copied whole, and when it has changed.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params};

use super::Fleet;
use crate::error::ServerError;

/// Under this name the essence of the last export is kept, with the keys.
const EXPORTED: &str = "exported";
/// Under this the digest of the vault key's wrap for the recovery key.
const RECOVERY_WRAP: &str = "recovery-wrap";
/// What an operator, an enrolment or a brake has changed; not what runs change every minute.
const ESSENCE: [&str; 4] = [
    "SELECT id, name, initiator, address, vault, policy, state, agent_key, listener_key, owner FROM clients ORDER BY id",
    "SELECT id, used_at FROM invitations ORDER BY id",
    "SELECT version, resumed FROM policy_versions ORDER BY version",
    "SELECT client, sequence, since, why FROM brakes ORDER BY client",
];

impl Fleet {
    /// A digest that changes with clients, invitations, policies and brakes.
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
        self.digest(EXPORTED)
    }

    /// Notes what was exported.
    ///
    /// # Errors
    /// SQLite.
    pub fn note_exported(&self, essence: &[u8; 32]) -> Result<(), ServerError> {
        self.note_digest(EXPORTED, essence)
    }

    /// The digest of the recovery key's wrap as it was made; none of a server that a version before has made.
    ///
    /// # Errors
    /// SQLite.
    pub fn recovery_wrap(&self) -> Result<Option<[u8; 32]>, ServerError> {
        self.digest(RECOVERY_WRAP)
    }

    /// Notes what the recovery key's wrap is.
    ///
    /// # Errors
    /// SQLite.
    pub fn note_recovery_wrap(&self, digest: &[u8; 32]) -> Result<(), ServerError> {
        self.note_digest(RECOVERY_WRAP, digest)
    }

    fn digest(&self, name: &str) -> Result<Option<[u8; 32]>, ServerError> {
        let sql = "SELECT key FROM keys WHERE name = ?1";
        Ok(self.db.query_row(sql, params![name], |row| row.get(0)).optional()?)
    }

    fn note_digest(&self, name: &str, digest: &[u8; 32]) -> Result<(), ServerError> {
        self.db.execute(
            "INSERT INTO keys VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET key = ?2",
            params![name, digest],
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use backhaul_schedule::brake::Profile;

    use super::*;
    use crate::fleet::{Brake, Initiator, Terms};

    /// Whoever loses the server an hour later must not lose the brake with it.
    #[test]
    fn a_brake_that_trips_or_is_released_is_worth_an_export() {
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = Fleet::open(&dir.path().join("fleet.sqlite")).unwrap();
        let terms = Terms {
            initiator: Initiator::CLIENT,
            address: None,
            vault: "main".to_owned(),
            policy: "default".to_owned(),
            owner: None,
        };
        fleet.add("desk", &terms, 1).unwrap();
        let desk = fleet.require("desk").unwrap();
        let before = fleet.essence().unwrap();
        let profile = Profile { sequence: 3, ..Profile::default() };
        fleet.note_run(&desk, &profile, None).unwrap();
        assert_eq!(fleet.essence().unwrap(), before, "a run like others is none");
        let brake = Brake { sequence: 4, since: 5, why: "all is gone".to_owned() };
        fleet.note_run(&desk, &Profile { sequence: 4, ..profile }, Some(&brake)).unwrap();
        let tripped = fleet.essence().unwrap();
        assert_ne!(tripped, before);
        fleet.release_brake(desk.id).unwrap();
        assert_eq!(fleet.essence().unwrap(), before);
    }
}
