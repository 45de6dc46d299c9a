//! Alerts and their deliveries: raised, told, cleared.
//!
//! An alert says in `announce` what is still to be handed to the channels: that is written with the alert itself, so
//! that no crash comes between. The courier turns it into one delivery for each recipient ([`Fleet::route`]).

use std::str::FromStr;

use backhaul_object::ids::ClientId;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Fleet;
use crate::alerts::post::Route;
use crate::alerts::{Alert, AlertKind, What, retry};
use crate::error::ServerError;

/// Which alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that are not cleared.
    Open,
    /// Those that are over, too.
    All,
}

/// An alert as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRow {
    /// Its number.
    pub id: i64,
    /// What it says.
    pub alert: Alert,
    /// The name of the client that it is about.
    pub client: Option<String>,
    /// The mail address of that client's owner.
    pub owner: Option<String>,
    /// Seconds since 1970.
    pub raised_at: u64,
    /// Seconds since 1970; none while it is open.
    pub cleared_at: Option<u64>,
    /// What is still to be handed to the channels.
    pub announce: Option<What>,
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is tried, or will be.
    Pending,
    /// It has arrived.
    Sent,
    /// It was given up.
    Failed,
}

impl DeliveryState {
    /// The word in the database and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for DeliveryState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known =
            [Self::Pending, Self::Sent, Self::Failed].into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no state of a delivery"))
    }
}

/// One message to one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub id: i64,
    /// Of which alert.
    pub alert: i64,
    /// To whom, by which channel.
    pub route: Route,
    /// What is told.
    pub what: What,
    /// How it stands.
    pub state: DeliveryState,
    /// How often it was tried.
    pub tries: u32,
    /// Since when it is to be delivered, in seconds since 1970.
    pub created_at: u64,
    /// When it is tried next, in seconds since 1970.
    pub next_try_at: u64,
    /// Why the last try failed.
    pub error: Option<String>,
}

impl Fleet {
    /// Raises an alert, unless there is an open one of its kind about the same: that one gets the new words, and
    /// nobody is told again. Returns the number of a new one.
    ///
    /// # Errors
    /// SQLite.
    pub fn raise(&self, alert: &Alert, now: u64) -> Result<Option<i64>, ServerError> {
        Ok(raise(&self.db, alert, now)?)
    }

    /// Tells everybody once more of an open alert, in new words; false when there is none.
    ///
    /// # Errors
    /// SQLite.
    pub fn remind(&self, alert: &Alert) -> Result<bool, ServerError> {
        // Whoever was not told of it yet needs no reminder.
        let open = self.db.execute(
            &format!(
                "UPDATE alerts SET text = ?4, obstacle = ?5, announce = ifnull(announce, 'reminder') WHERE {SAME}"
            ),
            params![
                alert.kind.as_str(),
                alert.client.map(|client| client.0),
                alert.group,
                alert.text,
                alert.obstacle
            ],
        )?;
        Ok(open > 0)
    }

    /// Clears an alert; false when there was none.
    ///
    /// # Errors
    /// SQLite.
    pub fn clear(
        &self,
        kind: AlertKind,
        client: Option<ClientId>,
        group: Option<&str>,
        now: u64,
    ) -> Result<bool, ServerError> {
        // What nobody was told of needs no all-clear.
        let cleared = self.db.execute(
            &format!(
                "UPDATE alerts SET cleared_at = ?4, announce = iif(announce IS 'raised', NULL, 'cleared')
                 WHERE {SAME}"
            ),
            params![kind.as_str(), client.map(|client| client.0), group, now as i64],
        )?;
        Ok(cleared > 0)
    }

    /// Alerts, newest first.
    ///
    /// # Errors
    /// SQLite.
    pub fn alerts(&self, which: Which, limit: usize) -> Result<Vec<AlertRow>, ServerError> {
        let condition = match which {
            Which::Open => "cleared_at IS NULL",
            Which::All => "TRUE",
        };
        let sql = format!("{SELECT} WHERE {condition} ORDER BY alerts.id DESC LIMIT ?1");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map(params![i64::try_from(limit).unwrap_or(i64::MAX)], alert)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One alert.
    ///
    /// # Errors
    /// SQLite.
    pub fn alert(&self, id: i64) -> Result<Option<AlertRow>, ServerError> {
        let sql = format!("{SELECT} WHERE alerts.id = ?1");
        Ok(self.db.prepare_cached(&sql)?.query_row(params![id], alert).optional()?)
    }

    /// Alerts with something that is still to be handed to the channels, oldest first.
    ///
    /// # Errors
    /// SQLite.
    pub fn unrouted(&self) -> Result<Vec<AlertRow>, ServerError> {
        let sql = format!("{SELECT} WHERE announce IS NOT NULL ORDER BY alerts.id");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map([], alert)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes a delivery for each recipient of what is to be told of an alert. Older news of it that has not arrived
    /// is dropped: it would arrive after the newer.
    ///
    /// # Errors
    /// SQLite.
    pub fn route(&mut self, alert: i64, what: What, routes: &[Route], now: u64) -> Result<(), ServerError> {
        let tx = self.db.transaction()?;
        let taken = tx.execute(
            "UPDATE alerts SET announce = NULL WHERE id = ?1 AND announce = ?2",
            params![alert, what.as_str()],
        )?;
        if taken == 0 {
            return Ok(());
        }
        tx.execute(
            "UPDATE deliveries SET state = 'failed', error = 'overtaken by newer news'
             WHERE alert = ?1 AND state = 'pending'",
            params![alert],
        )?;
        for route in routes {
            tx.execute(
                "INSERT INTO deliveries (alert, channel, recipient, what, state, created_at, next_try_at)
                 VALUES (?1, ?2, ?3, ?4, 'pending', ?5, ?5)",
                params![alert, route.channel.as_str(), route.recipient, what.as_str(), now as i64],
            )?;
        }
        tx.commit()?;
        Ok(())
    }

    /// Deliveries of an alert, oldest first.
    ///
    /// # Errors
    /// SQLite.
    pub fn deliveries(&self, alert: i64) -> Result<Vec<Delivery>, ServerError> {
        let sql = format!("{DELIVERIES} WHERE alert = ?1 ORDER BY id");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map(params![alert], delivery)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Deliveries that are pending, the most urgent first; those that are due have a `next_try_at` that is past.
    ///
    /// # Errors
    /// SQLite.
    pub fn pending(&self, now: u64, limit: usize) -> Result<Vec<Delivery>, ServerError> {
        // No wait is longer than that: a clock that was set back must not make one.
        self.db.execute(
            "UPDATE deliveries SET next_try_at = ?1 WHERE state = 'pending' AND next_try_at > ?2",
            params![now as i64, (now + retry::LONGEST) as i64],
        )?;
        let sql = format!("{DELIVERIES} WHERE state = 'pending' ORDER BY next_try_at, id LIMIT ?1");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map(params![i64::try_from(limit).unwrap_or(i64::MAX)], delivery)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes that a delivery has arrived.
    ///
    /// # Errors
    /// SQLite.
    pub fn delivered(&self, id: i64) -> Result<(), ServerError> {
        self.db.execute(
            "UPDATE deliveries SET state = 'sent', tries = tries + 1, error = NULL WHERE id = ?1",
            params![id],
        )?;
        Ok(())
    }

    /// Notes that a delivery failed, and when it is tried again; without a time it is given up.
    ///
    /// # Errors
    /// SQLite.
    pub fn not_delivered(&self, id: i64, why: &str, next: Option<u64>) -> Result<(), ServerError> {
        self.db.execute(
            "UPDATE deliveries SET tries = tries + 1, error = ?2, next_try_at = ifnull(?3, next_try_at),
                 state = iif(?3 IS NULL, 'failed', state)
             WHERE id = ?1 AND state = 'pending'",
            params![id, why, next.map(|at| at as i64)],
        )?;
        Ok(())
    }
}

pub(super) fn raise(db: &Connection, alert: &Alert, now: u64) -> rusqlite::Result<Option<i64>> {
    let client = alert.client.map(|client| client.0);
    let raised = db.execute(
        "INSERT INTO alerts (kind, client, network_group, raised_at, text, obstacle, announce)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'raised') ON CONFLICT DO NOTHING",
        params![alert.kind.as_str(), client, alert.group, now as i64, alert.text, alert.obstacle],
    )?;
    if raised > 0 {
        return Ok(Some(db.last_insert_rowid()));
    }
    db.execute(
        &format!(
            "UPDATE alerts SET text = ?4, obstacle = ?5 WHERE {SAME} AND (text <> ?4 OR obstacle <> ?5)"
        ),
        params![alert.kind.as_str(), client, alert.group, alert.text, alert.obstacle],
    )?;
    Ok(None)
}

/// The open alert of the same kind about the same thing.
const SAME: &str = "cleared_at IS NULL AND kind = ?1 AND client IS ?2 AND network_group IS ?3";

const SELECT: &str =
    "SELECT alerts.id, kind, client, name, owner, network_group, raised_at, cleared_at, text,
    alerts.obstacle, announce FROM alerts LEFT JOIN clients ON clients.id = alerts.client";

const DELIVERIES: &str =
    "SELECT id, alert, channel, recipient, what, state, tries, created_at, next_try_at, error
    FROM deliveries";

/// A word of the database as what it means.
fn word<T: FromStr<Err = String>>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|why: String| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, why.into())
    })
}

fn seconds(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)? as u64)
}

fn alert(row: &Row<'_>) -> rusqlite::Result<AlertRow> {
    let announce: Option<String> = row.get("announce")?;
    Ok(AlertRow {
        id: row.get("id")?,
        alert: Alert {
            kind: word(row, "kind")?,
            client: row.get::<_, Option<[u8; 16]>>("client")?.map(ClientId),
            group: row.get("network_group")?,
            text: row.get("text")?,
            obstacle: row.get("obstacle")?,
        },
        client: row.get("name")?,
        owner: row.get("owner")?,
        raised_at: seconds(row, "raised_at")?,
        cleared_at: row.get::<_, Option<i64>>("cleared_at")?.map(|at| at as u64),
        announce: announce.map(|_| word(row, "announce")).transpose()?,
    })
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get("id")?,
        alert: row.get("alert")?,
        route: Route { channel: word(row, "channel")?, recipient: row.get("recipient")? },
        what: word(row, "what")?,
        state: word(row, "state")?,
        tries: row.get("tries")?,
        created_at: seconds(row, "created_at")?,
        next_try_at: seconds(row, "next_try_at")?,
        error: row.get("error")?,
    })
}
