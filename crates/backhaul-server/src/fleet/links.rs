//! How clients are reached, what the scheduler remembers of them, and what it shows.

use std::net::IpAddr;

use backhaul_object::ids::ClientId;
use backhaul_schedule::fleet::Obstacle;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::Fleet;
use crate::error::ServerError;
use crate::keyring::random;

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkState {
    /// Not at all.
    #[default]
    None,
    /// By a link that waits.
    Standing,
    /// By a run that it has dialled for.
    Push,
    /// By a run that the server has dialled for.
    Dial,
}

impl LinkState {
    /// The word in the database and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Standing => "standing",
            Self::Push => "push",
            Self::Dial => "dial",
        }
    }
}

/// What the running server says about a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// How it is connected.
    pub link: LinkState,
    /// Its initiator, `auto` resolved.
    pub mode: String,
    /// What kind of thing keeps it from its backup.
    pub obstacle: Obstacle,
    /// The same in words.
    pub why: String,
    /// When its next run is due, seconds since 1970.
    pub next_at: Option<i64>,
}

pub(super) fn shown(row: &Row<'_>) -> rusqlite::Result<Shown> {
    let (link, obstacle): (String, String) = (row.get("link")?, row.get("obstacle")?);
    let links = [LinkState::Standing, LinkState::Push, LinkState::Dial];
    Ok(Shown {
        link: links.into_iter().find(|known| known.as_str() == link).unwrap_or_default(),
        mode: row.get("mode")?,
        obstacle: obstacle.parse().unwrap_or(Obstacle::None),
        why: row.get("why")?,
        next_at: row.get("next_at")?,
    })
}

/// The database while its writes are not waited for.
struct Lightly<'d>(&'d Connection);

impl Drop for Lightly<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.pragma_update(None, "synchronous", "FULL") {
            tracing::error!("fleet: {error}");
        }
    }
}

/// Where a client was met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Met {
    /// Where its packets come from.
    pub observed: Option<IpAddr>,
    /// Where it says that its listener is.
    pub reported: Option<String>,
    /// The time zone it says it is in.
    pub zone: Option<String>,
}

impl Fleet {
    /// Notes that a client was heard of; what it did not say this time stays as it was.
    ///
    /// # Errors
    /// SQLite.
    pub fn seen(&self, id: ClientId, met: &Met, now: u64) -> Result<(), ServerError> {
        let _lightly = self.lightly()?;
        self.db.execute(
            "UPDATE clients SET seen_at = max(?2, coalesce(seen_at, 0)), observed = coalesce(?3, observed),
                 reported = CASE WHEN ?3 IS NULL THEN reported ELSE ?4 END, zone = coalesce(?5, zone)
             WHERE id = ?1",
            params![
                id.0,
                now as i64,
                met.observed.map(|address| address.to_string()),
                met.reported,
                met.zone
            ],
        )?;
        Ok(())
    }

    /// Shows how clients stand, in one transaction.
    ///
    /// # Errors
    /// SQLite.
    pub fn show(&self, clients: &[(ClientId, Shown)]) -> Result<(), ServerError> {
        let _lightly = self.lightly()?;
        let tx = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        {
            let mut update = tx.prepare_cached(
                "UPDATE clients SET link = ?2, mode = ?3, obstacle = ?4, why = ?5, next_at = ?6 WHERE id = ?1",
            )?;
            for (id, shown) in clients {
                let Shown { link, mode, obstacle, why, next_at } = shown;
                update.execute(params![id.0, link.as_str(), mode, obstacle.as_str(), why, next_at])?;
            }
        }
        Ok(tx.commit()?)
    }

    /// What is written until this is dropped may be forgotten by a power cut, and nobody waits for the disk: it is said
    /// again by what runs then.
    fn lightly(&self) -> Result<Lightly<'_>, ServerError> {
        self.db.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(Lightly(&self.db))
    }

    /// A server that starts has no links.
    ///
    /// # Errors
    /// SQLite.
    pub fn forget_links(&self) -> Result<(), ServerError> {
        self.db.execute("UPDATE clients SET link = ''", [])?;
        Ok(())
    }

    /// What the scheduler remembers of a client.
    ///
    /// # Errors
    /// SQLite.
    pub fn memory(&self, id: ClientId) -> Result<Option<String>, ServerError> {
        let sql = "SELECT memory FROM clients WHERE id = ?1";
        Ok(self.db.query_row(sql, params![id.0], |row| row.get(0)).optional()?.flatten())
    }

    /// Keeps what the scheduler remembers, in one transaction.
    ///
    /// # Errors
    /// SQLite.
    pub fn keep(&mut self, memories: &[(ClientId, String)]) -> Result<(), ServerError> {
        let tx = self.db.transaction()?;
        {
            let mut update = tx.prepare_cached("UPDATE clients SET memory = ?2 WHERE id = ?1")?;
            for (id, memory) in memories {
                update.execute(params![id.0, memory])?;
            }
        }
        Ok(tx.commit()?)
    }

    /// No automatic run of a client before then; none lets it go on.
    ///
    /// # Errors
    /// SQLite.
    pub fn pause(&self, id: ClientId, until: Option<i64>) -> Result<(), ServerError> {
        self.db.execute("UPDATE clients SET paused_until = ?2 WHERE id = ?1", params![id.0, until])?;
        Ok(())
    }

    /// Asks the running server to nudge a client.
    ///
    /// # Errors
    /// SQLite.
    pub fn want_nudge(&self, id: ClientId) -> Result<(), ServerError> {
        self.db.execute("UPDATE clients SET nudge_wanted = 1 WHERE id = ?1", params![id.0])?;
        Ok(())
    }

    /// Takes the clients for which a nudge was asked.
    ///
    /// # Errors
    /// SQLite.
    pub fn take_wanted_nudges(&self) -> Result<Vec<ClientId>, ServerError> {
        let sql = "UPDATE clients SET nudge_wanted = 0 WHERE nudge_wanted = 1 RETURNING id";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get(0).map(ClientId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The version of the terms that a client's agent keeps to.
    ///
    /// # Errors
    /// SQLite.
    pub fn terms_applied(&self, id: ClientId, version: u64) -> Result<(), ServerError> {
        let sql = "UPDATE clients SET terms_version = ?2 WHERE id = ?1";
        self.db.execute(sql, params![id.0, version as i64])?;
        Ok(())
    }

    /// True when another process has changed the database since this was last asked.
    ///
    /// # Errors
    /// SQLite.
    pub fn has_changed(&mut self) -> Result<bool, ServerError> {
        let version: i64 = self.db.pragma_query_value(None, "data_version", |row| row.get(0))?;
        Ok(self.data_version.replace(version) != Some(version))
    }

    /// What was found changed could not be read: it is to be found changed again.
    pub fn look_again(&mut self) {
        self.data_version = None;
    }

    /// A key of this server, made when it is first asked for.
    ///
    /// # Errors
    /// SQLite, or no random numbers.
    pub fn key(&self, name: &str) -> Result<[u8; 32], ServerError> {
        let new: [u8; 32] = random()?;
        self.db.execute("INSERT INTO keys VALUES (?1, ?2) ON CONFLICT DO NOTHING", params![name, new])?;
        Ok(self.db.query_row("SELECT key FROM keys WHERE name = ?1", params![name], |row| row.get(0))?)
    }
}
