//! What the server does for the vault by itself and fails at, and the alert about it.

use rusqlite::params;

use super::Fleet;
use crate::alerts::{Alert, AlertKind};
use crate::error::ServerError;

/// Something that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What: export, forget, prune, scrub, or night for all of the night's chores.
    pub what: String,
    /// When it failed first since it last worked, in seconds since 1970.
    pub since: u64,
    /// Why it failed last.
    pub why: String,
}

impl Fleet {
    /// Something has failed that the server asked of itself: an alert says so until it works again.
    ///
    /// # Errors
    /// SQLite.
    pub fn upkeep_failed(&self, what: &str, why: &str, now: u64) -> Result<(), ServerError> {
        self.db.execute(
            "INSERT INTO upkeep VALUES (?1, ?2, ?3) ON CONFLICT (what) DO UPDATE SET why = ?3 WHERE why <> ?3",
            params![what, now as i64, why],
        )?;
        self.tell_upkeep(now)
    }

    /// It works. True when it did not before.
    ///
    /// # Errors
    /// SQLite.
    pub fn upkeep_works(&self, what: &str, now: u64) -> Result<bool, ServerError> {
        let failed = self.db.execute("DELETE FROM upkeep WHERE what = ?1", params![what])? > 0;
        if failed {
            self.tell_upkeep(now)?;
        }
        Ok(failed)
    }

    /// What fails, the longest first.
    ///
    /// # Errors
    /// SQLite.
    pub fn upkeep(&self) -> Result<Vec<Trouble>, ServerError> {
        let mut statement =
            self.db.prepare_cached("SELECT what, since, why FROM upkeep ORDER BY since, what")?;
        let rows = statement.query_map([], |row| {
            Ok(Trouble { what: row.get(0)?, since: row.get::<_, i64>(1)? as u64, why: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn tell_upkeep(&self, now: u64) -> Result<(), ServerError> {
        let troubles = self.upkeep()?;
        if troubles.is_empty() {
            self.clear(AlertKind::Upkeep, None, None, now)?;
            return Ok(());
        }
        let texts: Vec<String> =
            troubles.iter().map(|one| format!("{} fails: {}", one.what, one.why)).collect();
        let text = texts.join("; ");
        let kind = AlertKind::Upkeep;
        self.raise(&Alert { kind, client: None, group: None, text, obstacle: String::new() }, now)?;
        Ok(())
    }
}
