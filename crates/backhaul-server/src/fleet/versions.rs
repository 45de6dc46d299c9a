//! Versions of the policy file, and how the newest spreads.

use rusqlite::{OptionalExtension, Row, params};

use super::Fleet;
use crate::error::ServerError;

/// One version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// 1, 2, 3, …
    pub number: u64,
    /// The file as it was applied.
    pub text: String,
    /// Seconds since 1970.
    pub applied_at: u64,
    /// The state of its rollout; none before the server has seen it.
    pub rollout: Option<String>,
}

fn version(row: &Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version {
        number: row.get::<_, i64>(0)? as u64,
        text: row.get(1)?,
        applied_at: row.get::<_, i64>(2)? as u64,
        rollout: row.get(3)?,
    })
}

impl Fleet {
    /// The newest version; none before a file was applied.
    ///
    /// # Errors
    /// SQLite.
    pub fn newest_version(&self) -> Result<Option<Version>, ServerError> {
        let sql =
            "SELECT version, text, applied_at, rollout FROM policy_versions ORDER BY version DESC LIMIT 1";
        Ok(self.db.query_row(sql, [], version).optional()?)
    }

    /// A version by its number.
    ///
    /// # Errors
    /// SQLite.
    pub fn version(&self, number: u64) -> Result<Option<Version>, ServerError> {
        let sql = "SELECT version, text, applied_at, rollout FROM policy_versions WHERE version = ?1";
        Ok(self.db.query_row(sql, params![number as i64], version).optional()?)
    }

    /// The newest policy file; empty until one is applied.
    ///
    /// # Errors
    /// SQLite.
    pub fn policy_text(&self) -> Result<String, ServerError> {
        Ok(self.newest_version()?.map(|version| version.text).unwrap_or_default())
    }

    /// Makes a policy file the newest version; returns its number.
    ///
    /// # Errors
    /// SQLite.
    pub fn apply_policy(&self, text: &str, now: u64) -> Result<u64, ServerError> {
        self.db.execute(
            "INSERT INTO policy_versions (version, text, applied_at)
             SELECT coalesce(max(version), 0) + 1, ?1, ?2 FROM policy_versions",
            params![text, now as i64],
        )?;
        Ok(self.db.last_insert_rowid() as u64)
    }

    /// Keeps the state of a version's rollout.
    ///
    /// # Errors
    /// SQLite.
    pub fn keep_rollout(&self, number: u64, rollout: &str) -> Result<(), ServerError> {
        let sql = "UPDATE policy_versions SET rollout = ?2 WHERE version = ?1";
        self.db.execute(sql, params![number as i64, rollout])?;
        Ok(())
    }

    /// Asks the running server to go on with a version that was halted.
    ///
    /// # Errors
    /// SQLite.
    pub fn want_resume(&self, number: u64) -> Result<(), ServerError> {
        let sql = "UPDATE policy_versions SET resumed = 1 WHERE version = ?1";
        self.db.execute(sql, params![number as i64])?;
        Ok(())
    }

    /// True once after somebody asked for a version to go on.
    ///
    /// # Errors
    /// SQLite.
    pub fn take_wanted_resume(&self, number: u64) -> Result<bool, ServerError> {
        let sql = "UPDATE policy_versions SET resumed = 0 WHERE version = ?1 AND resumed = 1";
        Ok(self.db.execute(sql, params![number as i64])? > 0)
    }
}
