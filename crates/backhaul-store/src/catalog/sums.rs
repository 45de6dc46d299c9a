//! Sums over the rows of each table: SQLite alone does not notice a bit that has changed in a row.
//!
//! A table's digest is the sum of the hashes of its rows, so a trigger can keep it from the old row and the new one
//! alone. The triggers belong to the connection that writes, and are made for whatever tables there are.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::StoreError;

/// The table of the digests themselves.
const DIGESTS: &str = "digests";

/// Makes the functions of the triggers known to a connection.
pub(super) fn register(db: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function("row_hash", -1, flags, |context| {
        let values: Vec<ValueRef<'_>> = (0..context.len()).map(|i| context.get_raw(i)).collect();
        Ok(hash(&values))
    })?;
    db.create_scalar_function("digest_add", 2, flags, |context| {
        Ok(context.get::<i64>(0)?.wrapping_add(context.get::<i64>(1)?))
    })?;
    db.create_scalar_function("digest_take", 2, flags, |context| {
        Ok(context.get::<i64>(0)?.wrapping_sub(context.get::<i64>(1)?))
    })
}

fn hash(values: &[ValueRef<'_>]) -> i64 {
    let mut hasher = blake3::Hasher::new();
    for value in values {
        let number;
        let (tag, bytes): (u8, &[u8]) = match value {
            ValueRef::Null => (0, &[]),
            ValueRef::Integer(value) => {
                number = value.to_le_bytes();
                (1, &number)
            }
            ValueRef::Real(value) => {
                number = value.to_le_bytes();
                (2, &number)
            }
            ValueRef::Text(bytes) => (3, bytes),
            ValueRef::Blob(bytes) => (4, bytes),
        };
        hasher.update(&[tag]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    let mut head = [0; 8];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    i64::from_le_bytes(head)
}

/// The tables that have a digest, with their columns.
fn tables(db: &Connection) -> rusqlite::Result<Vec<(String, Vec<String>)>> {
    let mut names = db.prepare(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND name <> ?1 ORDER BY name",
    )?;
    let names: Vec<String> = names.query_map([DIGESTS], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut columns = db.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
    names
        .into_iter()
        .map(|name| {
            let columns = columns.query_map([&name], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok((name, columns))
        })
        .collect()
}

/// The digest of a table as it is.
fn sum(db: &Connection, (table, columns): &(String, Vec<String>)) -> rusqlite::Result<i64> {
    let mut statement = db.prepare(&format!("SELECT {} FROM {table}", columns.join(", ")))?;
    let mut rows = statement.query([])?;
    let mut total = 0_i64;
    while let Some(row) = rows.next()? {
        let mut values = vec![ValueRef::Text(table.as_bytes())];
        for column in 0..columns.len() {
            values.push(row.get_ref(column)?);
        }
        total = total.wrapping_add(hash(&values));
    }
    Ok(total)
}

/// Writes down the digests of all tables as they are: after a migration.
pub(super) fn reset(db: &Connection) -> rusqlite::Result<()> {
    db.execute("DELETE FROM digests", [])?;
    for table in tables(db)? {
        let sum = sum(db, &table)?;
        db.execute("INSERT INTO digests VALUES (?1, ?2)", params![table.0, sum])?;
    }
    Ok(())
}

/// Keeps the digests right while this connection writes.
pub(super) fn watch(db: &Connection) -> rusqlite::Result<()> {
    // A row that is replaced is a row that is deleted, too.
    db.pragma_update(None, "recursive_triggers", "ON")?;
    for (table, columns) in tables(db)? {
        let row = |which: &str| {
            let columns: Vec<String> = columns.iter().map(|column| format!("{which}.{column}")).collect();
            format!("row_hash('{table}', {})", columns.join(", "))
        };
        let (old, new) = (row("OLD"), row("NEW"));
        for (event, sum) in [
            ("INSERT", format!("digest_add(sum, {new})")),
            ("DELETE", format!("digest_take(sum, {old})")),
            ("UPDATE", format!("digest_add(digest_take(sum, {old}), {new})")),
        ] {
            db.execute_batch(&format!(
                "CREATE TEMP TRIGGER digest_{event}_{table} AFTER {event} ON main.{table} BEGIN
                 UPDATE digests SET sum = {sum} WHERE name = '{table}'; END"
            ))?;
        }
    }
    Ok(())
}

/// Compares every table with its digest.
///
/// # Errors
/// The first table that does not fit, or SQLite.
pub(super) fn verify(db: &Connection) -> Result<(), StoreError> {
    let wrong = |why: String| {
        StoreError::damaged("catalog.sqlite", format!("{why}; run `backhaul check --rebuild-index`"))
    };
    let tables = tables(db)?;
    for table in &tables {
        let known: Option<i64> = db
            .query_row("SELECT sum FROM digests WHERE name = ?1", [&table.0], |row| row.get(0))
            .optional()?;
        if known != Some(sum(db, table)?) {
            return Err(wrong(format!("the rows of {} are not those that were written", table.0)));
        }
    }
    let digests: i64 = db.query_row("SELECT count(*) FROM digests", [], |row| row.get(0))?;
    match digests == tables.len() as i64 {
        true => Ok(()),
        false => Err(wrong("a table is missing".to_owned())),
    }
}
