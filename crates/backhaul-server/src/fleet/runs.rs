//! Runs: asked for, started, ended.

use backhaul_object::ObjectId;
use backhaul_object::ids::ClientId;
use rusqlite::{OptionalExtension, Row, params};

use super::{Client, Fleet, SELECT, client};
use crate::error::ServerError;

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub client: ClientId,
    /// `queued`, `running`, `done`, `partial` or `failed`.
    pub state: String,
    /// The snapshot it made.
    pub snapshot: Option<ObjectId>,
    /// Files that could not be read.
    pub errors: u64,
    /// Why it failed.
    pub why: Option<String>,
}

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

    /// Clients for which somebody has asked for a run that has not begun.
    ///
    /// # Errors
    /// SQLite.
    pub fn queued(&self) -> Result<Vec<ClientId>, ServerError> {
        let mut statement =
            self.db.prepare_cached("SELECT DISTINCT client FROM runs WHERE state = 'queued'")?;
        let rows = statement.query_map([], |row| row.get(0).map(ClientId))?;
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

    /// Begins a run that the server starts: the oldest that was asked for, or one of its own accord.
    ///
    /// # Errors
    /// SQLite, or the client is gone.
    pub fn begin_run(&mut self, id: ClientId, now: u64) -> Result<(i64, Client), ServerError> {
        let tx = self.db.transaction()?;
        let oldest = "SELECT id FROM runs WHERE state = 'queued' AND client = ?1 ORDER BY id LIMIT 1";
        let queued: Option<i64> = tx.query_row(oldest, params![id.0], |row| row.get(0)).optional()?;
        let run = match queued {
            Some(run) => {
                let begin = "UPDATE runs SET state = 'running', started_at = ?2 WHERE id = ?1";
                tx.execute(begin, params![run, now as i64])?;
                run
            }
            None => {
                tx.execute(
                    "INSERT INTO runs (client, initiator, state, requested_at, started_at)
                     VALUES (?1, 'server', 'running', ?2, ?2)",
                    params![id.0, now as i64],
                )?;
                tx.last_insert_rowid()
            }
        };
        let by_id = format!("{SELECT} WHERE id = ?1");
        let client = tx.query_row(&by_id, params![id.0], client)?;
        tx.commit()?;
        Ok((run, client))
    }

    /// Notes that a client has started a run itself.
    ///
    /// # Errors
    /// SQLite.
    pub fn start_run(&self, client: ClientId, now: u64) -> Result<i64, ServerError> {
        self.db.execute(
            "INSERT INTO runs (client, initiator, state, requested_at, started_at)
             VALUES (?1, 'client', 'running', ?2, ?2)",
            params![client.0, now as i64],
        )?;
        Ok(self.db.last_insert_rowid())
    }

    /// Notes how a run ended.
    ///
    /// # Errors
    /// SQLite.
    pub fn end_run(
        &self,
        id: i64,
        outcome: Result<(ObjectId, u64), &str>,
        now: u64,
    ) -> Result<(), ServerError> {
        let (state, snapshot, errors, why) = match outcome {
            Ok((snapshot, 0)) => ("done", Some(snapshot.0), 0, None),
            Ok((snapshot, errors)) => ("partial", Some(snapshot.0), errors, None),
            Err(why) => ("failed", None, 0, Some(why)),
        };
        self.db.execute(
            "UPDATE runs SET state = ?2, snapshot = ?3, errors = ?4, why = ?5, ended_at = ?6 WHERE id = ?1",
            params![id, state, snapshot, errors as i64, why, now as i64],
        )?;
        Ok(())
    }

    /// Runs that a crash of the server left open have failed.
    ///
    /// # Errors
    /// SQLite.
    pub fn fail_orphans(&self, now: u64) -> Result<(), ServerError> {
        self.db.execute(
            "UPDATE runs SET state = 'failed', why = 'the server was stopped', ended_at = ?1
             WHERE state = 'running'",
            params![now as i64],
        )?;
        Ok(())
    }

    /// One run.
    ///
    /// # Errors
    /// SQLite.
    pub fn run(&self, id: i64) -> Result<Option<Run>, ServerError> {
        let read = |row: &Row<'_>| {
            Ok(Run {
                id: row.get(0)?,
                client: ClientId(row.get(1)?),
                state: row.get(2)?,
                snapshot: row.get::<_, Option<[u8; 32]>>(3)?.map(ObjectId),
                errors: row.get::<_, i64>(4)? as u64,
                why: row.get(5)?,
            })
        };
        let sql = "SELECT id, client, state, snapshot, errors, why FROM runs WHERE id = ?1";
        Ok(self.db.query_row(sql, params![id], read).optional()?)
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
