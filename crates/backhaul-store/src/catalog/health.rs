//! What checks have found: per pack when and what, what is lost, and whose.

use backhaul_object::ShortId;
use backhaul_object::ids::{ClientId, PackId};
use rusqlite::params;

use super::{Catalog, get_u64, sums};
use crate::error::StoreError;
use crate::index::Ordinal;

/// What came of reading a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it was written.
    Whole,
    /// It was damaged and is whole again.
    Mended,
    /// It is damaged.
    Damaged,
}

impl Verdict {
    /// The word in the catalog and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Mended => "mended",
            Self::Damaged => "damaged",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Whole, Self::Mended, Self::Damaged].into_iter().find(|verdict| verdict.as_str() == word)
    }
}

/// A pack that was read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackCheck {
    /// Which.
    pub pack: PackId,
    /// Seconds since 1970.
    pub checked_at: u64,
    /// What came of it.
    pub verdict: Verdict,
}

/// An object that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Its number.
    pub ordinal: Ordinal,
    /// Its id.
    pub id: ShortId,
    /// Seconds since 1970.
    pub found_at: u64,
}

impl Catalog {
    /// Writes down what came of reading packs; what is known of packs that are gone is forgotten.
    ///
    /// # Errors
    /// SQLite.
    pub fn note_checks(&mut self, checks: &[PackCheck]) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        for check in checks {
            tx.prepare_cached("INSERT OR REPLACE INTO pack_checks VALUES (?1, ?2, ?3)")?.execute(params![
                check.pack.0,
                check.checked_at as i64,
                check.verdict.as_str()
            ])?;
        }
        tx.execute(
            "DELETE FROM pack_checks WHERE pack NOT IN (SELECT name FROM packs WHERE name IS NOT NULL)",
            [],
        )?;
        tx.commit()?;
        Ok(())
    }

    /// Forgets what is known of a pack, as if nobody had read it yet.
    ///
    /// # Errors
    /// SQLite.
    pub fn forget_check(&mut self, pack: &PackId) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM pack_checks WHERE pack = ?1", [pack.0])?;
        Ok(())
    }

    /// What is known of packs that were read, and are still there.
    ///
    /// # Errors
    /// SQLite, or a row that makes no sense.
    pub fn checks(&self) -> Result<Vec<PackCheck>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT pack, checked_at, result FROM pack_checks WHERE pack IN (SELECT name FROM packs)",
        )?;
        let rows = statement.query_map([], |row| {
            let word: String = row.get(2)?;
            Ok(PackCheck {
                pack: PackId(row.get(0)?),
                checked_at: get_u64(row, 1)?,
                verdict: Verdict::of(&word).unwrap_or(Verdict::Damaged),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes these the lost objects; returns those that were not known to be lost.
    ///
    /// # Errors
    /// SQLite.
    pub fn set_lost(&mut self, lost: &[Lost]) -> Result<Vec<Lost>, StoreError> {
        let tx = self.db.transaction()?;
        let known: Vec<i64> = {
            let mut statement = tx.prepare("SELECT ordinal FROM lost")?;
            statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        for ordinal in known.iter().filter(|known| !lost.iter().any(|lost| lost.ordinal.0 as i64 == **known))
        {
            tx.execute("DELETE FROM lost WHERE ordinal = ?1", params![ordinal])?;
        }
        let mut fresh = Vec::new();
        for item in lost.iter().filter(|lost| !known.contains(&(lost.ordinal.0 as i64))) {
            tx.execute(
                "INSERT INTO lost VALUES (?1, ?2, ?3)",
                params![item.ordinal.0 as i64, item.id.0, item.found_at as i64],
            )?;
            fresh.push(*item);
        }
        tx.commit()?;
        Ok(fresh)
    }

    /// These have come back.
    ///
    /// # Errors
    /// SQLite; nothing is then written.
    pub fn drop_lost(&mut self, back: &[Ordinal]) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        for ordinal in back {
            tx.prepare_cached("DELETE FROM lost WHERE ordinal = ?1")?.execute(params![ordinal.0 as i64])?;
        }
        tx.commit()?;
        Ok(())
    }

    /// What is lost.
    ///
    /// # Errors
    /// SQLite.
    pub fn lost(&self) -> Result<Vec<Lost>, StoreError> {
        let mut statement =
            self.db.prepare("SELECT ordinal, substr(id, 1, 24), found_at FROM lost ORDER BY ordinal")?;
        let rows = statement.query_map([], |row| {
            let (ordinal, id) = (Ordinal(get_u64(row, 0)?), ShortId(row.get(1)?));
            Ok(Lost { ordinal, id, found_at: get_u64(row, 2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A client has lost something.
    ///
    /// # Errors
    /// SQLite.
    pub fn add_loss(&self, client: ClientId) -> Result<(), StoreError> {
        self.db.execute(
            "INSERT INTO losses VALUES (?1, 1) ON CONFLICT (client) DO UPDATE SET times = times + 1",
            params![client.0],
        )?;
        Ok(())
    }

    /// How often a client has lost something.
    ///
    /// # Errors
    /// SQLite.
    pub fn losses(&self, client: ClientId) -> Result<u64, StoreError> {
        let sql = "SELECT ifnull(sum(times), 0) FROM losses WHERE client = ?1";
        Ok(self.db.query_row(sql, params![client.0], |row| get_u64(row, 0))?)
    }

    /// Compares every row with the sums, and the file with itself.
    ///
    /// # Errors
    /// What is damaged.
    pub fn verify(&self) -> Result<(), StoreError> {
        let words: String = self.db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        match words == "ok" {
            true => sums::verify(&self.db),
            false => Err(StoreError::damaged("catalog.sqlite", words)),
        }
    }
}
