//! Which machines use a client's identity: a machine that comes back after another one has taken its place is not
//! alone, and one of the two is a copy.

use backhaul_object::ids::ClientId;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::Fleet;
use crate::error::ServerError;

/// Machines of one client that are remembered: each restart is one.
const KEPT: i64 = 16;
/// A machine's last sign is written down so often, in seconds.
const FRESH: i64 = 3_600;

/// What tells one machine from another: boot, disk and place, hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The hash.
    pub instance: Vec<u8>,
    /// The name it has given itself.
    pub host: String,
    /// Where it was seen.
    pub address: String,
}

/// What a machine is to a client's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    /// It speaks for the client, as far as anybody knows.
    Alone,
    /// It was here before another one came, and is back: there are two. The one that was here first goes on.
    First {
        /// The other one.
        copy: Machine,
    },
    /// It is the copy, and is not let in.
    Copy {
        /// The one that goes on.
        first: Machine,
    },
}

impl Fleet {
    /// Notes which machine speaks for a client, and judges. A new one may be the same machine after a restart, and is
    /// taken for that until the older one comes back.
    ///
    /// # Errors
    /// SQLite.
    pub fn judge_instance(
        &mut self,
        id: ClientId,
        machine: &Machine,
        now: u64,
    ) -> Result<Instance, ServerError> {
        if self.speaks_already(id, machine, now)? {
            return Ok(Instance::Alone);
        }
        let tx = self.db.transaction()?;
        let judged = judge(&tx, id, machine)?;
        let Machine { instance, host, address } = machine;
        tx.execute(
            "INSERT INTO instances (client, instance, host, address, first_seen, last_seen, turn)
             SELECT ?1, ?2, ?3, ?4, ?5, ?5, coalesce(max(turn), 0) + 1 FROM instances WHERE client = ?1
             ON CONFLICT DO UPDATE SET host = ?3, address = ?4, last_seen = ?5",
            params![id.0, instance, host, address, now as i64],
        )?;
        let old = "DELETE FROM instances WHERE client = ?1 AND turn <= (SELECT max(turn) - ?2 FROM instances WHERE client = ?1)";
        tx.execute(old, params![id.0, KEPT])?;
        if matches!(judged, Instance::First { .. }) {
            let mine = "(SELECT turn FROM instances WHERE client = ?1 AND instance = ?2)";
            let refuse = format!("UPDATE instances SET refused = 1 WHERE client = ?1 AND turn > {mine}");
            tx.execute(&refuse, params![id.0, instance])?;
        }
        tx.commit()?;
        Ok(judged)
    }

    /// True for the machine that spoke for the client last, and lately: there is nothing to write.
    fn speaks_already(&self, id: ClientId, machine: &Machine, now: u64) -> Result<bool, ServerError> {
        let newest = "SELECT instance, address, last_seen FROM instances WHERE client = ?1 AND refused = 0
             ORDER BY turn DESC LIMIT 1";
        let row =
            |row: &Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?));
        let found = self.db.query_row(newest, params![id.0], row).optional()?;
        Ok(found.is_some_and(|(instance, address, seen)| {
            instance == machine.instance
                && address == machine.address
                && (now as i64) < seen.saturating_add(FRESH)
        }))
    }

    /// A client that joins anew is whatever machine it is now.
    ///
    /// # Errors
    /// SQLite.
    pub fn forget_instances(&self, id: ClientId) -> Result<(), ServerError> {
        self.db.execute("DELETE FROM instances WHERE client = ?1", params![id.0])?;
        Ok(())
    }
}

fn judge(tx: &Transaction<'_>, id: ClientId, machine: &Machine) -> rusqlite::Result<Instance> {
    let find = "SELECT turn, refused FROM instances WHERE client = ?1 AND instance = ?2";
    let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?));
    let known = tx.query_row(find, params![id.0, machine.instance], row).optional()?;
    let Some((turn, refused)) = known else { return Ok(Instance::Alone) };
    // The newest that is not refused, if that is another one.
    let current = tx
        .query_row(
            "SELECT instance, host, address, turn FROM instances WHERE client = ?1 AND refused = 0
             ORDER BY turn DESC LIMIT 1",
            params![id.0],
            |row| {
                let machine = Machine { instance: row.get(0)?, host: row.get(1)?, address: row.get(2)? };
                Ok((machine, row.get::<_, i64>(3)?))
            },
        )
        .optional()?;
    Ok(match current {
        Some((first, _)) if refused => Instance::Copy { first },
        Some((copy, newer)) if newer > turn => Instance::First { copy },
        _ => Instance::Alone,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::{Initiator, Terms};
    use super::*;

    fn fleet(dir: &std::path::Path) -> (Fleet, ClientId) {
        let mut fleet = Fleet::open(&dir.join("fleet.sqlite")).unwrap();
        let terms = Terms {
            initiator: Initiator::CLIENT,
            address: None,
            vault: "main".to_owned(),
            policy: "default".to_owned(),
            owner: None,
        };
        fleet.add("desk", &terms, 1).unwrap();
        let id = fleet.require("desk").unwrap().id;
        (fleet, id)
    }

    #[test]
    fn who_comes_back_after_another_is_the_first_and_the_other_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (mut fleet, id) = fleet(dir.path());
        let machine =
            |n: u8| Machine { instance: vec![n], host: format!("host-{n}"), address: format!("10.0.0.{n}") };
        let mut judge = |n: u8, now| fleet.judge_instance(id, &machine(n), now).unwrap();
        assert_eq!(judge(1, 1), Instance::Alone);
        assert_eq!(judge(1, 2), Instance::Alone);
        assert_eq!(judge(2, 3), Instance::Alone, "it may have been restarted");
        assert_eq!(judge(2, 4), Instance::Alone);
        assert_eq!(judge(1, 5), Instance::First { copy: machine(2) });
        assert_eq!(judge(2, 6), Instance::Copy { first: machine(1) });
        assert_eq!(judge(1, 7), Instance::Alone, "it goes on, and is told once");
        assert_eq!(judge(3, 8), Instance::Alone, "a restart of either");
        fleet.forget_instances(id).unwrap();
        assert_eq!(fleet.judge_instance(id, &machine(2), 9).unwrap(), Instance::Alone);
    }

    #[test]
    fn a_judgement_waits_while_another_process_writes() {
        let dir = tempfile::tempdir().unwrap();
        let (_, id) = fleet(dir.path());
        let machine = Machine { instance: vec![1], host: String::new(), address: String::new() };
        let judge_often = || {
            let mut own = Fleet::open(&dir.path().join("fleet.sqlite")).unwrap();
            (0..300).all(|now| own.judge_instance(id, &machine, now).is_ok())
        };
        std::thread::scope(|scope| {
            let others = [scope.spawn(judge_often), scope.spawn(judge_often)];
            assert!(others.map(|other| other.join().unwrap()).iter().all(|well| *well));
        });
    }
}
