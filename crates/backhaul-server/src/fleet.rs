//! Clients, invitations and runs: one SQLite file that the daemon and the command line share.

use std::path::Path;
use std::time::Duration;

use backhaul_net::join_code::Secret;
use backhaul_object::ids::ClientId;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::alerts::config::check_address;
use crate::error::ServerError;
use crate::keyring::random;

/// Migrations, in order; the database's `user_version` says how many were run.
const MIGRATIONS: [&str; 9] = [
    include_str!("../../../schemas/fleet/0001.sql"),
    include_str!("../../../schemas/fleet/0002.sql"),
    include_str!("../../../schemas/fleet/0003.sql"),
    include_str!("../../../schemas/fleet/0004.sql"),
    include_str!("../../../schemas/fleet/0005.sql"),
    include_str!("../../../schemas/fleet/0007.sql"),
    include_str!("../../../schemas/fleet/0008.sql"),
    include_str!("../../../schemas/fleet/0009.sql"),
    include_str!("../../../schemas/fleet/0010.sql"),
];
mod alerts;
mod brakes;
mod chores;
mod essence;
mod instances;
mod links;
mod runs;
mod upkeep;
mod versions;

pub use alerts::{AlertRow, Delivery, DeliveryState, Which};
pub use backhaul_schedule::policy::Initiator;
pub use brakes::Brake;
pub use chores::{AskedBy, ChoreRow, ChoreState, FailureKind, Lane};
pub use instances::{Instance, Machine};
pub use links::{LinkState, Met, Shown};
pub(crate) use runs::{CUT_SHORT, PAUSED};
pub use runs::{Run, RunState};
pub use upkeep::Trouble;
pub use versions::Version;

/// How long one process waits for another's transaction.
const BUSY: Duration = Duration::from_secs(10);
/// Of the database's pages kept in memory, in KiB: it is small, and the system has it, too.
const CACHE_KIB: i64 = 256;
/// How long a join code is good.
pub const INVITATION_TTL: u64 = 48 * 3_600;

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientState {
    /// Has a join code.
    Invited,
    /// Has certificates.
    Active,
    /// Is not let in any more; its snapshots stay.
    Revoked,
}

impl ClientState {
    /// The word in the database and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }
}

/// One client.
#[derive(Debug, Clone)]
pub struct Client {
    /// Survives renaming.
    pub id: ClientId,
    /// Its name.
    pub name: String,
    /// Who starts.
    pub initiator: Initiator,
    /// Where its agent listens.
    pub address: Option<String>,
    /// Which vault.
    pub vault: String,
    /// Where it stands.
    pub state: ClientState,
    /// BLAKE3 of its keys: agent, listener.
    pub keys: [Option<[u8; 32]>; 2],
    /// Which policy.
    pub policy: String,
    /// Seconds since 1970.
    pub added_at: u64,
    /// When it was last in a session.
    pub seen_at: Option<u64>,
    /// Mail address of the person whose machine it is.
    pub owner: Option<String>,
    /// No automatic run before then, seconds since 1970.
    pub paused_until: Option<i64>,
    /// Where it was seen last.
    pub observed: Option<std::net::IpAddr>,
    /// Where it says that its listener is.
    pub reported: Option<String>,
    /// The time zone it says it is in.
    pub zone: Option<String>,
    /// What the running server shows of it.
    pub shown: Shown,
    /// The version of the terms that its agent keeps to.
    pub terms_version: u64,
}

/// An invitation as the server keeps it.
pub struct Invitation {
    /// Who is invited.
    pub client: ClientId,
    /// Checks the request.
    pub proof_key: [u8; 32],
    /// Seconds since 1970.
    pub expires_at: u64,
    /// True once it was used.
    pub used: bool,
}

/// What is agreed about a client when it is added.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Who starts.
    pub initiator: Initiator,
    /// Where its agent listens.
    pub address: Option<String>,
    /// Which vault.
    pub vault: String,
    /// Which policy.
    pub policy: String,
    /// Mail address of the person whose machine it is.
    pub owner: Option<String>,
}

impl Terms {
    fn check(&self) -> Result<(), ServerError> {
        self.owner.as_deref().map_or(Ok(()), |owner| check_address(owner).map_err(ServerError::BadAddress))
    }
}

/// The open database.
pub struct Fleet {
    db: Connection,
    /// SQLite's count of the changes that others made, as last seen.
    data_version: Option<i64>,
}

/// Checks a client's name.
///
/// # Errors
/// [`ServerError::BadName`].
pub fn check_name(name: &str) -> Result<(), ServerError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    match first && name.len() <= 63 && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(ServerError::BadName(name.to_owned())),
    }
}

fn migrate(tx: rusqlite::Transaction<'_>) -> Result<(), ServerError> {
    let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > MIGRATIONS.len() as i64 {
        return Err(ServerError::NewerFleet(version));
    }
    for sql in MIGRATIONS.iter().skip(version as usize) {
        tx.execute_batch(sql)?;
    }
    tx.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    Ok(tx.commit()?)
}

impl Fleet {
    /// Opens the database, making it if it is new.
    ///
    /// # Errors
    /// SQLite.
    pub fn open(path: &Path) -> Result<Self, ServerError> {
        let mut db = Connection::open(path)?;
        db.busy_timeout(BUSY)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        // One that reads before it writes would fail at once, without waiting, if another process has written meanwhile.
        db.set_transaction_behavior(rusqlite::TransactionBehavior::Immediate);
        // Every command opens this: only a new program writes here.
        let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version != MIGRATIONS.len() as i64 {
            migrate(db.transaction()?)?;
        }
        Ok(Self { db, data_version: None })
    }

    /// Adds a client and invites it, or invites anew one that never joined or was revoked: it keeps its
    /// snapshots, and its older codes and keys are void. `now` is seconds since 1970.
    ///
    /// # Errors
    /// A bad or taken name, or SQLite.
    pub fn add(&mut self, name: &str, terms: &Terms, now: u64) -> Result<(Secret, u64), ServerError> {
        check_name(name)?;
        terms.check()?;
        let known = self.client(name)?;
        if known.as_ref().is_some_and(|client| client.state == ClientState::Active) {
            return Err(ServerError::ClientExists(name.to_owned()));
        }
        let id = known.map_or_else(random, |client| Ok(client.id.0))?;
        let secret = Secret(random()?);
        let (expires_at, starts) = (now + INVITATION_TTL, terms.initiator.as_str());
        let tx = self.db.transaction()?;
        tx.execute(
            "INSERT INTO clients (id, name, initiator, address, vault, policy, state, added_at, owner)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'invited', ?7, ?8)
             ON CONFLICT (id) DO UPDATE SET initiator = ?3, address = ?4, policy = ?6, state = 'invited',
                 agent_key = NULL, listener_key = NULL, owner = ?8",
            params![id, name, starts, terms.address, terms.vault, terms.policy, now as i64, terms.owner],
        )?;
        invite(&tx, ClientId(id), &secret, expires_at)?;
        tx.commit()?;
        Ok((secret, expires_at))
    }

    /// Invites another machine to take a client's place, whose snapshots and contents it has from then on. The machine
    /// that has it now stays until that one joins; codes that were given before are void.
    ///
    /// # Errors
    /// No such client, or SQLite.
    pub fn replace(&mut self, name: &str, now: u64) -> Result<(Secret, u64), ServerError> {
        let client = self.require(name)?;
        if client.state == ClientState::Revoked {
            let terms = Terms {
                initiator: client.initiator,
                address: client.address,
                vault: client.vault,
                policy: client.policy,
                owner: client.owner,
            };
            return self.add(name, &terms, now);
        }
        let (secret, expires_at) = (Secret(random()?), now + INVITATION_TTL);
        let tx = self.db.transaction()?;
        invite(&tx, client.id, &secret, expires_at)?;
        tx.commit()?;
        Ok((secret, expires_at))
    }

    /// All clients by name.
    ///
    /// # Errors
    /// SQLite.
    pub fn clients(&self) -> Result<Vec<Client>, ServerError> {
        let mut statement = self.db.prepare(&format!("{SELECT} ORDER BY name"))?;
        let rows = statement.query_map([], client)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One client by name.
    ///
    /// # Errors
    /// SQLite.
    pub fn client(&self, name: &str) -> Result<Option<Client>, ServerError> {
        Ok(self.db.query_row(&format!("{SELECT} WHERE name = ?1"), params![name], client).optional()?)
    }

    /// One client by its id.
    ///
    /// # Errors
    /// SQLite.
    pub fn client_by_id(&self, id: ClientId) -> Result<Option<Client>, ServerError> {
        Ok(self.db.query_row(&format!("{SELECT} WHERE id = ?1"), params![id.0], client).optional()?)
    }

    /// One client by name, or an error that says so.
    ///
    /// # Errors
    /// [`ServerError::NoClient`], or SQLite.
    pub fn require(&self, name: &str) -> Result<Client, ServerError> {
        self.client(name)?.ok_or_else(|| ServerError::NoClient(name.to_owned()))
    }

    /// Changes what is agreed about a client; its vault stays.
    ///
    /// # Errors
    /// The owner's address is none, or SQLite.
    pub fn edit(&self, id: ClientId, terms: &Terms) -> Result<(), ServerError> {
        terms.check()?;
        self.db.execute(
            "UPDATE clients SET initiator = ?2, address = ?3, policy = ?4, owner = ?5 WHERE id = ?1",
            params![id.0, terms.initiator.as_str(), terms.address, terms.policy, terms.owner],
        )?;
        Ok(())
    }

    /// Lets a client in no more.
    ///
    /// # Errors
    /// SQLite.
    pub fn revoke(&mut self, id: ClientId, now: u64) -> Result<(), ServerError> {
        let tx = self.db.transaction()?;
        tx.execute(
            "UPDATE runs SET state = 'failed', why = 'the client was revoked', ended_at = ?2
             WHERE client = ?1 AND state IN ('running', 'queued')",
            params![id.0, now as i64],
        )?;
        tx.execute(
            "UPDATE alerts SET cleared_at = ?2 WHERE client = ?1 AND cleared_at IS NULL",
            params![id.0, now as i64],
        )?;
        tx.execute("UPDATE clients SET state = 'revoked' WHERE id = ?1", params![id.0])?;
        tx.execute("DELETE FROM invitations WHERE client = ?1", params![id.0])?;
        tx.commit()?;
        Ok(())
    }

    /// The invitation of an id.
    ///
    /// # Errors
    /// SQLite.
    pub fn invitation(&self, id: &[u8]) -> Result<Option<(Invitation, Client)>, ServerError> {
        let found = self
            .db
            .query_row(
                "SELECT client, proof_key, expires_at, used_at FROM invitations WHERE id = ?1",
                params![id],
                |row| {
                    Ok(Invitation {
                        client: ClientId(row.get(0)?),
                        proof_key: row.get(1)?,
                        expires_at: row.get::<_, i64>(2)? as u64,
                        used: row.get::<_, Option<i64>>(3)?.is_some(),
                    })
                },
            )
            .optional()?;
        let Some(invitation) = found else { return Ok(None) };
        let by_id = format!("{SELECT} WHERE id = ?1");
        let client = self.db.query_row(&by_id, params![invitation.client.0], client).optional()?;
        Ok(client.map(|client| (invitation, client)))
    }

    /// Uses an invitation up; false when somebody else was faster.
    ///
    /// # Errors
    /// SQLite.
    pub fn enrol(
        &mut self,
        id: &[u8],
        client: ClientId,
        keys: [[u8; 32]; 2],
        now: u64,
    ) -> Result<bool, ServerError> {
        let tx = self.db.transaction()?;
        let used = tx.execute(
            "UPDATE invitations SET used_at = ?2 WHERE id = ?1 AND used_at IS NULL",
            params![id, now as i64],
        )?;
        if used == 0 {
            return Ok(false);
        }
        tx.execute(
            "UPDATE clients SET state = 'active', agent_key = ?2, listener_key = ?3 WHERE id = ?1",
            params![client.0, keys[0], keys[1]],
        )?;
        tx.commit()?;
        Ok(true)
    }
}

/// The one code of a client that is good from now on.
fn invite(tx: &Transaction<'_>, id: ClientId, secret: &Secret, expires_at: u64) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM invitations WHERE client = ?1", params![id.0])?;
    tx.execute(
        "INSERT INTO invitations (id, client, proof_key, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![secret.invitation(), id.0, secret.proof_key(), expires_at as i64],
    )?;
    Ok(())
}

const SELECT: &str = "SELECT id, name, initiator, address, vault, state, agent_key, listener_key, added_at, seen_at, policy, why, owner,
    paused_until, observed, reported, zone, link, mode, obstacle, next_at, terms_version FROM clients";

fn client(row: &Row<'_>) -> rusqlite::Result<Client> {
    let initiator: String = row.get(2)?;
    let state: String = row.get(5)?;
    let observed: Option<String> = row.get("observed")?;
    Ok(Client {
        id: ClientId(row.get(0)?),
        name: row.get(1)?,
        initiator: initiator.parse().unwrap_or(Initiator::CLIENT),
        address: row.get(3)?,
        vault: row.get(4)?,
        state: match state.as_str() {
            "invited" => ClientState::Invited,
            "active" => ClientState::Active,
            _ => ClientState::Revoked,
        },
        keys: [row.get(6)?, row.get(7)?],
        added_at: row.get::<_, i64>(8)? as u64,
        seen_at: row.get::<_, Option<i64>>(9)?.map(|seconds| seconds as u64),
        policy: row.get(10)?,
        owner: row.get("owner")?,
        paused_until: row.get("paused_until")?,
        observed: observed.and_then(|text| text.parse().ok()),
        reported: row.get("reported")?,
        zone: row.get("zone")?,
        shown: links::shown(row)?,
        terms_version: row.get::<_, i64>("terms_version")? as u64,
    })
}
