//! Chores: asked for, done, remembered. The command line asks here, the process that has the vault carries out.

use std::str::FromStr;

use rusqlite::{OptionalExtension, Row, params};

use super::Fleet;
use crate::error::ServerError;

/// Chores that are remembered once they are over.
const REMEMBERED: i64 = 2_000;

/// Who wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedBy {
    /// Somebody, by a command.
    Operator,
    /// The night.
    Timer,
}

impl AskedBy {
    /// The word in the database and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Timer => "timer",
        }
    }
}

/// Where a chore stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChoreState {
    /// It waits for the ones before it in its lane.
    Queued,
    /// It is being done.
    Running,
    /// It is done.
    Done,
    /// It is not, or not all of it.
    Failed,
}

impl ChoreState {
    const ALL: [Self; 4] = [Self::Queued, Self::Running, Self::Done, Self::Failed];

    /// The word in the database and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// True once nothing more will happen to it.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// Of which kind a failure is, for the exit code of whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// It was asked for wrongly.
    Usage,
    /// Something is damaged.
    Damage,
    /// The key is wrong.
    Key,
    /// Anything else.
    Failed,
}

impl FailureKind {
    const ALL: [Self; 4] = [Self::Usage, Self::Damage, Self::Key, Self::Failed];

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Damage => "damage",
            Self::Key => "key",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for FailureKind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// A chore as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoreRow {
    /// Its number.
    pub id: i64,
    /// The word of what is done.
    pub kind: String,
    /// Who wanted it.
    pub asked_by: AskedBy,
    /// What exactly, as JSON.
    pub request: String,
    /// Where it stands.
    pub state: ChoreState,
    /// Seconds since 1970.
    pub requested_at: u64,
    /// Seconds since 1970.
    pub started_at: Option<u64>,
    /// Seconds since 1970.
    pub ended_at: Option<u64>,
    /// How far it is; once it is over, what it came to or why it failed.
    pub words: String,
    /// What it came to, as JSON.
    pub result: Option<String>,
    /// Of which kind its failure is.
    pub failure: Option<FailureKind>,
}

/// Which chores somebody takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// All: nobody else is there.
    All,
    /// Checks, which may take hours.
    Checks,
    /// All others.
    Others,
}

impl Lane {
    fn condition(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Checks => "AND kind = 'check'",
            Self::Others => "AND kind <> 'check'",
        }
    }
}

impl Fleet {
    /// Asks for a chore.
    ///
    /// # Errors
    /// SQLite.
    pub fn queue_chore(
        &self,
        kind: &str,
        asked_by: AskedBy,
        request: &str,
        now: u64,
    ) -> Result<i64, ServerError> {
        self.db.execute(
            "INSERT INTO chores (kind, asked_by, request, state, requested_at)
             VALUES (?1, ?2, ?3, 'queued', ?4)",
            params![kind, asked_by.as_str(), request, now as i64],
        )?;
        Ok(self.db.last_insert_rowid())
    }

    /// Takes the oldest chore that waits in a lane.
    ///
    /// # Errors
    /// SQLite.
    pub fn begin_chore(&self, lane: Lane, now: u64) -> Result<Option<ChoreRow>, ServerError> {
        let condition = lane.condition();
        let sql = format!("{SELECT} WHERE state = 'queued' {condition} ORDER BY id LIMIT 1");
        let Some(found) = self.db.prepare_cached(&sql)?.query_row([], chore).optional()? else {
            return Ok(None);
        };
        self.db.execute(
            "UPDATE chores SET state = 'running', started_at = ?2 WHERE id = ?1",
            params![found.id, now as i64],
        )?;
        self.chore(found.id)
    }

    /// Says how far a chore is.
    ///
    /// # Errors
    /// SQLite.
    pub fn chore_progress(&self, id: i64, words: &str) -> Result<(), ServerError> {
        self.db.execute("UPDATE chores SET words = ?2 WHERE id = ?1", params![id, words])?;
        Ok(())
    }

    /// Notes how a chore ended: the words and the document of what it came to, or why it failed. Old ones are removed.
    ///
    /// # Errors
    /// SQLite.
    pub fn end_chore(
        &self,
        id: i64,
        outcome: Result<(&str, &str), (&str, FailureKind)>,
        now: u64,
    ) -> Result<(), ServerError> {
        let (state, words, result, failure) = match outcome {
            Ok((words, result)) => ("done", words, Some(result), None),
            Err((why, kind)) => ("failed", why, None, Some(kind.as_str())),
        };
        self.db.execute(
            "UPDATE chores SET state = ?2, words = ?3, result = ?4, failure = ?5, ended_at = ?6 WHERE id = ?1",
            params![id, state, words, result, failure, now as i64],
        )?;
        self.db.execute("DELETE FROM chores WHERE id <= ?1", params![id - REMEMBERED])?;
        Ok(())
    }

    /// Chores that were being done when their process ended have failed.
    ///
    /// # Errors
    /// SQLite.
    pub fn abandon_chores(&self, now: u64) -> Result<(), ServerError> {
        self.db.execute(
            "UPDATE chores SET state = 'failed', words = 'the server was stopped meanwhile', failure = 'failed',
                 ended_at = ?1 WHERE state = 'running'",
            params![now as i64],
        )?;
        Ok(())
    }

    /// One chore.
    ///
    /// # Errors
    /// SQLite.
    pub fn chore(&self, id: i64) -> Result<Option<ChoreRow>, ServerError> {
        let sql = format!("{SELECT} WHERE id = ?1");
        Ok(self.db.prepare_cached(&sql)?.query_row(params![id], chore).optional()?)
    }

    /// The newest chores, oldest first.
    ///
    /// # Errors
    /// SQLite.
    pub fn chores(&self, limit: usize) -> Result<Vec<ChoreRow>, ServerError> {
        let sql = format!("{SELECT} ORDER BY id DESC LIMIT ?1");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map(params![limit as i64], chore)?;
        let mut chores: Vec<ChoreRow> = rows.collect::<Result<_, _>>()?;
        chores.reverse();
        Ok(chores)
    }

    /// When the night last asked for retention, in seconds since 1970.
    ///
    /// # Errors
    /// SQLite.
    pub fn last_night(&self) -> Result<Option<u64>, ServerError> {
        let sql = "SELECT max(id), requested_at FROM chores WHERE asked_by = 'timer' AND kind = 'forget'";
        let at: Option<i64> = self.db.query_row(sql, [], |row| row.get(1))?;
        Ok(at.map(|at| at as u64))
    }
}

const SELECT: &str =
    "SELECT id, kind, asked_by, request, state, requested_at, started_at, ended_at, words, result,
    failure FROM chores";

fn chore(row: &Row<'_>) -> rusqlite::Result<ChoreRow> {
    let (asked_by, state): (String, String) = (row.get(2)?, row.get(4)?);
    let failure: Option<String> = row.get(10)?;
    let seconds = |at: Option<i64>| at.map(|at| at as u64);
    Ok(ChoreRow {
        id: row.get(0)?,
        kind: row.get(1)?,
        asked_by: if asked_by == "timer" { AskedBy::Timer } else { AskedBy::Operator },
        request: row.get(3)?,
        state: ChoreState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .unwrap_or(ChoreState::Failed),
        requested_at: row.get::<_, i64>(5)? as u64,
        started_at: seconds(row.get(6)?),
        ended_at: seconds(row.get(7)?),
        words: row.get(8)?,
        result: row.get(9)?,
        failure: failure.and_then(|word| word.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A check of every byte takes hours: the night's prune is not behind it.
    #[test]
    fn a_check_holds_up_no_other_chore_but_checks() {
        let dir = tempfile::tempdir().unwrap();
        let fleet = Fleet::open(&dir.path().join("fleet.sqlite")).unwrap();
        for kind in ["check", "check", "forget", "prune"] {
            fleet.queue_chore(kind, AskedBy::Operator, "{}", 1).unwrap();
        }
        let next = |lane| fleet.begin_chore(lane, 2).unwrap().map(|row| row.kind);
        assert_eq!(next(Lane::Checks).as_deref(), Some("check"));
        assert_eq!(next(Lane::Others).as_deref(), Some("forget"));
        assert_eq!(next(Lane::All).as_deref(), Some("check"));
        assert_eq!(next(Lane::Others).as_deref(), Some("prune"));
        assert_eq!((next(Lane::Checks), next(Lane::Others), next(Lane::All)), (None, None, None));
    }
}
