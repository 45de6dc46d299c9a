//! The catalog: packs and snapshots in SQLite. A cache: everything in it follows from packs and manifests.

use std::path::Path;

use backhaul_object::ids::{ClientId, ObjectId, PackId, SessionId, ShortId, VaultId};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, params};

use crate::error::StoreError;
use crate::index::Ordinal;
use crate::pack::Class;

mod health;
mod marks;
mod sums;

pub use health::{Lost, PackCheck, Verdict};

/// Migrations, in order; the database's `user_version` says how many were run.
const MIGRATIONS: [&str; 5] = [
    include_str!("../../../schemas/catalog/0001.sql"),
    include_str!("../../../schemas/catalog/0002.sql"),
    include_str!("../../../schemas/catalog/0003.sql"),
    include_str!("../../../schemas/catalog/0004.sql"),
    include_str!("../../../schemas/catalog/0005.sql"),
];
/// Version of the index files that this program writes.
pub(crate) const INDEX_VERSION: u32 = 2;
/// Earlier versions may corrupt a write-ahead log when two connections checkpoint at once.
const SQLITE_MIN: i32 = 3_051_003;

/// A pack as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRow {
    /// Its number.
    pub number: u32,
    /// Its name, once sealed.
    pub name: Option<PackId>,
    /// What it holds.
    pub class: Class,
    /// Who wrote it.
    pub session: SessionId,
    /// For whom.
    pub client: ClientId,
    /// Durable bytes.
    pub bytes: u64,
    /// Records.
    pub objects: u64,
}

/// A snapshot as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// The snapshot object.
    pub id: ObjectId,
    /// Its number.
    pub ordinal: Ordinal,
    /// Whose.
    pub client: ClientId,
    /// The client's name when it was made.
    pub client_name: String,
    /// 1, 2, 3, … per client.
    pub sequence: u64,
    /// Seconds since 1970 by the server's clock.
    pub server_time: u64,
    /// Bytes that the run added.
    pub bytes_stored: u64,
    /// Objects that the run added.
    pub objects_new: u64,
}

mod claims;

pub use claims::{Claims, Upload};

/// A possession that was shown and is not yet covered by a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// By whom.
    pub client: ClientId,
    /// Of what.
    pub ordinal: Ordinal,
    /// Which member, if it is a bundle's.
    pub member: Option<u16>,
}

/// Counts that bound the index files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Objects.
    pub objects: u64,
    /// Rows about bundles and their members.
    pub contents: u64,
    /// Objects that refer to something.
    pub parents: u64,
    /// The id of the object with the highest number.
    pub newest: Option<ShortId>,
}

/// The open database.
pub struct Catalog {
    db: Connection,
}

impl Catalog {
    /// Opens the database; an empty one gets its tables.
    ///
    /// # Errors
    /// Not a database, of a newer schema, or SQLite itself too old.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if rusqlite::version_number() < SQLITE_MIN {
            return Err(StoreError::OldSqlite(rusqlite::version()));
        }
        let mut db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        sums::register(&db)?;
        migrate(&mut db, &MIGRATIONS)?;
        sums::verify(&db)?;
        sums::watch(&db)?;
        Ok(Self { db })
    }

    /// Opens the catalog of the vault at `root` for looking only, beside the process that has the vault.
    ///
    /// # Errors
    /// Not there, or not readable.
    pub fn look(root: &Path) -> Result<Self, StoreError> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        Ok(Self { db: Connection::open_with_flags(root.join("catalog.sqlite"), flags)? })
    }

    /// Puts all of it into its one file, durably, and closes it: so that it can be moved. When it is only dropped, a failure to
    /// do so is told to nobody.
    ///
    /// # Errors
    /// SQLite; the file is good for nothing then.
    pub(crate) fn close_whole(self) -> Result<(), StoreError> {
        self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        self.db.close().map_err(|(_, error)| error.into())
    }

    /// Writes the one row of a new catalog.
    ///
    /// # Errors
    /// SQLite.
    pub fn initialise(&self, generation: &[u8; 16], vault: &VaultId) -> Result<(), StoreError> {
        let sql = "INSERT INTO meta (only, generation, objects, members, vault, index_version)
                   VALUES (1, ?1, 0, 0, ?2, ?3)";
        self.db.execute(sql, params![generation, vault.0, INDEX_VERSION])?;
        Ok(())
    }

    /// Whose catalog it is, if it says so.
    ///
    /// # Errors
    /// SQLite.
    pub fn vault(&self) -> Result<Option<VaultId>, StoreError> {
        let read = |row: &Row<'_>| row.get::<_, Option<[u8; 16]>>(0);
        Ok(self.db.query_row("SELECT vault FROM meta", [], read).optional()?.flatten().map(VaultId))
    }

    /// Generation and counts; none in a catalog that was never initialised.
    ///
    /// # Errors
    /// SQLite.
    pub fn meta(&self) -> Result<Option<([u8; 16], Counts)>, StoreError> {
        let read = |row: &Row<'_>| {
            let newest = row.get::<_, Option<[u8; 24]>>(3)?.map(ShortId);
            let (objects, contents, parents) = (get_u64(row, 1)?, get_u64(row, 2)?, get_u64(row, 4)?);
            Ok((row.get(0)?, Counts { objects, contents, parents, newest }))
        };
        let sql = "SELECT generation, objects, members, newest, parents FROM meta";
        Ok(self.db.query_row(sql, [], read).optional()?)
    }

    /// Version of the index files that count.
    ///
    /// # Errors
    /// SQLite.
    pub(crate) fn index_version(&self) -> Result<u32, StoreError> {
        Ok(self.db.query_row("SELECT index_version FROM meta", [], |row| row.get(0))?)
    }

    /// From now on the index files of this program's version count.
    ///
    /// # Errors
    /// SQLite.
    pub(crate) fn set_index(&mut self, counts: &Counts) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        put_counts(&tx, counts)?;
        tx.execute("UPDATE meta SET index_version = ?1", params![INDEX_VERSION])?;
        tx.commit()?;
        Ok(())
    }

    /// Writes counts, packs and claims in one durable transaction.
    ///
    /// # Errors
    /// SQLite; nothing is then written.
    pub fn flush(
        &mut self,
        counts: Counts,
        packs: &[PackRow],
        claims: &Claims<'_>,
    ) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        put_counts(&tx, &counts)?;
        put_packs(&tx, packs)?;
        claims.write(&tx)?;
        tx.commit()?;
        Ok(())
    }

    /// Forgets packs that never got a record.
    ///
    /// # Errors
    /// SQLite.
    pub fn remove_pack(&self, number: u32) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM packs WHERE number = ?1", params![number])?;
        Ok(())
    }

    /// Packs take the place of others, in one durable transaction.
    ///
    /// # Errors
    /// SQLite; nothing is then written.
    pub fn replace_packs(&mut self, new: &[PackRow], old: &[u32]) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        put_packs(&tx, new)?;
        for number in old {
            tx.prepare_cached("DELETE FROM packs WHERE number = ?1")?.execute(params![number])?;
        }
        tx.commit()?;
        Ok(())
    }

    /// All packs.
    ///
    /// # Errors
    /// SQLite, or a row that makes no sense.
    pub fn packs(&self) -> Result<Vec<PackRow>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT number, name, class, session, client, bytes, objects FROM packs ORDER BY number",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(PackRow {
                number: row.get(0)?,
                name: row.get::<_, Option<[u8; 32]>>(1)?.map(PackId),
                class: if row.get::<_, u8>(2)? == 0 { Class::Data } else { Class::Meta },
                session: SessionId(row.get(3)?),
                client: ClientId(row.get(4)?),
                bytes: get_u64(row, 5)?,
                objects: get_u64(row, 6)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds a committed snapshot; what the client had proven is now covered by it.
    ///
    /// # Errors
    /// SQLite.
    pub fn add_snapshot(&mut self, row: &SnapshotRow) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        put_snapshot(&tx, row)?;
        tx.execute("DELETE FROM proven WHERE client = ?1", params![row.client.0])?;
        claims::covered(&tx, row.client)?;
        tx.commit()?;
        Ok(())
    }

    /// All snapshots by client and sequence.
    ///
    /// # Errors
    /// SQLite.
    pub fn snapshots(&self) -> Result<Vec<SnapshotRow>, StoreError> {
        self.snapshots_by("true", params![])
    }

    /// A client's snapshots by sequence, without a look at those of others.
    ///
    /// # Errors
    /// SQLite.
    pub fn snapshots_of(&self, client: ClientId) -> Result<Vec<SnapshotRow>, StoreError> {
        self.snapshots_by(OF_CLIENT, params![client.0])
    }

    fn snapshots_by(&self, which: &str, values: &[&dyn ToSql]) -> Result<Vec<SnapshotRow>, StoreError> {
        let mut statement = self.db.prepare_cached(&snapshots_sql(which))?;
        let rows = statement.query_map(values, |row| {
            Ok(SnapshotRow {
                id: ObjectId(row.get(0)?),
                ordinal: Ordinal(get_u64(row, 1)?),
                client: ClientId(row.get(2)?),
                client_name: row.get(3)?,
                sequence: get_u64(row, 4)?,
                server_time: get_u64(row, 5)?,
                bytes_stored: get_u64(row, 6)?,
                objects_new: get_u64(row, 7)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What a client has proven since its last snapshot.
    ///
    /// # Errors
    /// SQLite.
    pub fn proven(&self, client: ClientId) -> Result<Vec<Proven>, StoreError> {
        let mut statement = self.db.prepare("SELECT ordinal, member FROM proven WHERE client = ?1")?;
        let rows = statement.query_map(params![client.0], |row| {
            let member = u16::try_from(row.get::<_, i64>(1)?).ok();
            Ok(Proven { client, ordinal: Ordinal(get_u64(row, 0)?), member })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Which of all snapshots are a client's.
const OF_CLIENT: &str = "client = ?1";

fn snapshots_sql(which: &str) -> String {
    format!(
        "SELECT id, ordinal, client, client_name, sequence, server_time, bytes_stored, objects_new
         FROM snapshots WHERE {which} ORDER BY client, sequence"
    )
}

fn put_counts(tx: &Transaction<'_>, counts: &Counts) -> Result<(), StoreError> {
    let Counts { objects, contents, parents, newest } = *counts;
    tx.execute(
        "UPDATE meta SET objects = ?1, members = ?2, newest = ?3, parents = ?4",
        params![objects as i64, contents as i64, newest.map(|id| id.0), parents as i64],
    )?;
    Ok(())
}

fn put_snapshot(db: &Connection, row: &SnapshotRow) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO snapshots VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            row.id.0,
            row.ordinal.0 as i64,
            row.client.0,
            row.client_name,
            row.sequence as i64,
            row.server_time as i64,
            row.bytes_stored as i64,
            row.objects_new as i64
        ],
    )?;
    Ok(())
}

fn put_packs(tx: &Transaction<'_>, packs: &[PackRow]) -> Result<(), StoreError> {
    let mut statement =
        tx.prepare_cached("INSERT OR REPLACE INTO packs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for pack in packs {
        statement.execute(params![
            pack.number,
            pack.name.as_ref().map(|name| name.0),
            pack.class as u8,
            pack.session.0,
            pack.client.0,
            pack.bytes as i64,
            pack.objects as i64
        ])?;
    }
    Ok(())
}

/// Runs the migrations that a database has not had, and sums its rows anew.
fn migrate(db: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let known = migrations.len() as i64;
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(StoreError::NewerCatalog { found, known });
    }
    if found == known {
        return Ok(());
    }
    let tx = db.transaction()?;
    let is_summed: bool = tx.query_row(
        "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = 'digests'",
        [],
        |row| row.get(0),
    )?;
    if is_summed {
        sums::verify(&tx)?;
    }
    migrations.iter().skip(found as usize).try_for_each(|sql| tx.execute_batch(sql))?;
    sums::reset(&tx)?;
    tx.pragma_update(None, "user_version", known)?;
    tx.commit()?;
    Ok(())
}

/// SQLite integers are signed; the ones here never are.
fn get_u64(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

#[cfg(test)]
mod tests;
