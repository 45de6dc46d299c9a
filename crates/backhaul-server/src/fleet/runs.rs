//! Runs: asked for, started, ended.

use backhaul_object::ObjectId;
use backhaul_object::ids::ClientId;
use rusqlite::{OptionalExtension, Row, params};

use super::Fleet;
use crate::error::ServerError;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Somebody asked for it.
    Queued,
    /// It has its slot; its connection may be lost for a moment.
    Running,
    /// It made a snapshot.
    Done,
    /// It made one, and some files could not be read.
    Partial,
    /// It made none: somebody ended it, on the client or by a pause.
    Interrupted,
    /// It made none.
    Failed,
}

impl RunState {
    const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Done, Self::Partial, Self::Interrupted, Self::Failed];

    /// The word in the database and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Partial => "partial",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }

    /// True once nothing more will happen to it.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub client: ClientId,
    /// Where it stands.
    pub state: RunState,
    /// Who has started it: `server` or `client`.
    pub initiator: String,
    /// What made it begin: timer, join, manual, nudge, dialled; empty while it is queued.
    pub trigger: String,
    /// Seconds since 1970.
    pub requested_at: u64,
    /// Seconds since 1970.
    pub started_at: Option<u64>,
    /// Seconds since 1970.
    pub ended_at: Option<u64>,
    /// The snapshot it made.
    pub snapshot: Option<ObjectId>,
    /// Files that could not be read.
    pub errors: u64,
    /// Why it made no snapshot.
    pub why: Option<String>,
}

/// How the reasons begin of runs that are interrupted: on the client, or by a pause.
pub(crate) const CUT_SHORT: &str = "cut short on the client: ";
pub(crate) const PAUSED: &str = "backups of this client are paused on the server";

impl Fleet {
    /// Asks for a run.
    ///
    /// # Errors
    /// SQLite.
    pub fn queue_run(&self, client: ClientId, now: u64) -> Result<i64, ServerError> {
        self.db.execute(
            "INSERT INTO runs (client, initiator, state, requested_at) VALUES (?1, 'server', 'queued', ?2)",
            params![client.0, now as i64],
        )?;
        Ok(self.db.last_insert_rowid())
    }

    /// The oldest run of each client that somebody has asked for and that has not begun.
    ///
    /// # Errors
    /// SQLite.
    pub fn queued(&self) -> Result<Vec<(i64, ClientId)>, ServerError> {
        let mut statement = self
            .db
            .prepare_cached("SELECT min(id), client FROM runs WHERE state = 'queued' GROUP BY client")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, ClientId(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Runs that can never begin have failed.
    ///
    /// # Errors
    /// SQLite.
    pub fn fail_queued(&self, client: ClientId, why: &str, now: u64) -> Result<(), ServerError> {
        self.db.execute(
            "UPDATE runs SET state = 'failed', why = ?2, ended_at = ?3 WHERE state = 'queued' AND client = ?1",
            params![client.0, why, now as i64],
        )?;
        Ok(())
    }

    /// Begins a run, or goes on with the one that is open: its connection was lost. A new one is the oldest that was
    /// asked for, if any.
    ///
    /// # Errors
    /// SQLite.
    pub fn open_run(
        &mut self,
        client: ClientId,
        initiator: &str,
        trigger: &str,
        now: u64,
    ) -> Result<i64, ServerError> {
        let tx = self.db.transaction()?;
        let find = |state: &str| {
            let sql = "SELECT id FROM runs WHERE state = ?2 AND client = ?1 ORDER BY id LIMIT 1";
            tx.query_row(sql, params![client.0, state], |row| row.get::<_, i64>(0)).optional()
        };
        let run = match (find("running")?, find("queued")?) {
            (Some(run), _) => run,
            (None, Some(run)) => {
                let begin = "UPDATE runs SET state = 'running', started_at = ?2, initiator = ?3, trigger = ?4 WHERE id = ?1";
                tx.execute(begin, params![run, now as i64, initiator, trigger])?;
                run
            }
            (None, None) => {
                tx.execute(
                    "INSERT INTO runs (client, initiator, trigger, state, requested_at, started_at)
                     VALUES (?1, ?2, ?3, 'running', ?4, ?4)",
                    params![client.0, initiator, trigger, now as i64],
                )?;
                tx.last_insert_rowid()
            }
        };
        tx.commit()?;
        Ok(run)
    }

    /// The run of a client that is open.
    ///
    /// # Errors
    /// SQLite.
    pub fn running(&self, client: ClientId) -> Result<Option<Run>, ServerError> {
        let sql = format!("{RUN} WHERE client = ?1 AND state = 'running' ORDER BY id LIMIT 1");
        Ok(self.db.query_row(&sql, params![client.0], run).optional()?)
    }

    /// Notes the snapshot that a run made, and how many files it could not read.
    ///
    /// # Errors
    /// SQLite.
    pub fn end_run(&self, id: i64, snapshot: ObjectId, errors: u64, now: u64) -> Result<(), ServerError> {
        let state = if errors == 0 { RunState::Done } else { RunState::Partial };
        self.db.execute(
            "UPDATE runs SET state = ?2, snapshot = ?3, errors = ?4, ended_at = ?5 WHERE id = ?1",
            params![id, state.as_str(), snapshot.0, errors as i64, now as i64],
        )?;
        Ok(())
    }

    /// The open run of a client, or all open ones, will not go on.
    ///
    /// # Errors
    /// SQLite.
    pub fn fail_open(&self, client: Option<ClientId>, why: &str, now: u64) -> Result<(), ServerError> {
        self.close_open(client, RunState::Failed, why, now)
    }

    /// The open run of a client will not go on, for somebody has ended it.
    ///
    /// # Errors
    /// SQLite.
    pub fn interrupt_open(&self, client: ClientId, why: &str, now: u64) -> Result<(), ServerError> {
        self.close_open(Some(client), RunState::Interrupted, why, now)
    }

    fn close_open(
        &self,
        client: Option<ClientId>,
        state: RunState,
        why: &str,
        now: u64,
    ) -> Result<(), ServerError> {
        self.db.execute(
            "UPDATE runs SET state = ?2, why = ?3, ended_at = ?4
             WHERE state = 'running' AND (?1 IS NULL OR client = ?1)",
            params![client.map(|client| client.0), state.as_str(), why, now as i64],
        )?;
        Ok(())
    }

    /// One run.
    ///
    /// # Errors
    /// SQLite.
    pub fn run(&self, id: i64) -> Result<Option<Run>, ServerError> {
        Ok(self.db.query_row(&format!("{RUN} WHERE id = ?1"), params![id], run).optional()?)
    }

    /// The newest runs, oldest first; of one client, or of all.
    ///
    /// # Errors
    /// SQLite.
    pub fn runs(&self, client: Option<ClientId>, limit: usize) -> Result<Vec<Run>, ServerError> {
        let sql = format!("{RUN} WHERE ?1 IS NULL OR client = ?1 ORDER BY id DESC LIMIT ?2");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map(params![client.map(|client| client.0), limit as i64], run)?;
        let mut runs: Vec<Run> = rows.collect::<Result<_, _>>()?;
        runs.reverse();
        Ok(runs)
    }

    /// The newest run of a client that has ended.
    ///
    /// # Errors
    /// SQLite.
    pub fn last_run(&self, client: ClientId) -> Result<Option<Run>, ServerError> {
        let sql = "SELECT max(id) FROM runs WHERE client = ?1 AND ended_at IS NOT NULL";
        let id: Option<i64> = self.db.query_row(sql, params![client.0], |row| row.get(0))?;
        id.map_or(Ok(None), |id| self.run(id))
    }
}

const RUN: &str = "SELECT id, client, state, snapshot, errors, why, initiator, trigger, requested_at, started_at, ended_at FROM runs";

fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    let state: String = row.get(2)?;
    let seconds = |at: Option<i64>| at.map(|at| at as u64);
    Ok(Run {
        id: row.get(0)?,
        client: ClientId(row.get(1)?),
        state: RunState::ALL.into_iter().find(|known| known.as_str() == state).unwrap_or(RunState::Failed),
        snapshot: row.get::<_, Option<[u8; 32]>>(3)?.map(ObjectId),
        errors: row.get::<_, i64>(4)? as u64,
        why: row.get(5)?,
        initiator: row.get(6)?,
        trigger: row.get(7)?,
        requested_at: row.get::<_, i64>(8)? as u64,
        started_at: seconds(row.get(9)?),
        ended_at: seconds(row.get(10)?),
    })
}
