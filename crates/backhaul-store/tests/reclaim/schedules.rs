//! Random schedules of sessions, restores, marks, deletion and crashes.
//!
//! `BACKHAUL_SCHEDULES=100000 cargo test --workspace --test reclaim random_schedules` runs more of them;
//! `BACKHAUL_SEED=n` begins at another seed. A failure names its seed.

use backhaul_object::ObjectId;
use backhaul_object::ids::{ClientId, SessionId};
use backhaul_store::catalog::SnapshotRow;
use backhaul_store::reclaim::{Step, Watch};
use backhaul_store::{Ordinal, ReaderPass, StoreError, Vault, WriteSession};
use backhaul_tests::dice::Dice;

use crate::world::{LEAVES, World};
use crate::yard::*;

/// Some of these, each once.
fn some(dice: &mut Dice, of: &[u32]) -> Vec<u32> {
    let mut chosen: Vec<u32> = (0..1 + dice.index(4)).map(|_| of[dice.index(of.len())]).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn one_schedule(seed: u64) -> Result<(), String> {
    let mut dice = Dice::of(seed, 0);
    let mut world = World::default();
    for _ in 0..40 + dice.index(120) {
        let at = dice.index(world.sessions.len());
        let known = if world.sessions.is_empty() { Vec::new() } else { world.known(at) };
        let all: Vec<u32> = world.snapshots.keys().copied().collect();
        match dice.index(24) {
            0 | 1 => world.begin(dice.index(3) as u8),
            2 if dice.index(3) == 0 => world.crash(),
            3 => world.mark_begin(),
            4 | 5 => world.mark_end(),
            6 | 7 => drop(world.let_go()),
            8 | 9 if !all.is_empty() => world.forget(all[dice.index(all.len())]),
            10 if !all.is_empty() => world.read(all[dice.index(all.len())]),
            20 | 21 if !all.is_empty() => {
                let reader = dice.index(world.readers());
                world.read_on(reader, all[dice.index(all.len())]);
            }
            22 => world.renew(dice.index(world.readers())),
            11 if dice.index(2) == 0 => world.read_end(),
            _ if world.sessions.is_empty() => world.begin(0),
            12 if dice.index(4) == 0 => world.end(at),
            13 => world.ask(at, dice.index(world.ids() as usize) as u32),
            14 => world.add_leaf(at, dice.index(LEAVES as usize) as u32)?,
            15 if !known.is_empty() => world.resolve(at, &some(&mut dice, &known))?,
            16 | 17 => world.add_node(at)?,
            18 if !known.is_empty() => world.commit(at, known[dice.index(known.len())])?,
            _ => world.flush(),
        }
        world.audit()?;
    }
    world.clear_out()
}

#[test]
fn random_schedules() {
    let first = number("BACKHAUL_SEED", 1);
    for seed in first..first + number("BACKHAUL_SCHEDULES", 4_000) {
        one_schedule(seed).unwrap_or_else(|why| panic!("BACKHAUL_SEED={seed}: {why}"));
    }
}

/// A restore, or a mount: it has looked up a snapshot, and reads it in its own time.
struct Restore {
    pass: ReaderPass,
    of: SnapshotRow,
    needs: Vec<Ordinal>,
}

impl Restore {
    fn begin(vault: &Vault, of: SnapshotRow) -> Self {
        let pass = vault.enter_reader("a restore", of.client);
        let (mut needs, mut next) = (vec![of.ordinal], 0);
        while let Some(ordinal) = needs.get(next) {
            let below: Vec<Ordinal> = vault.edges(*ordinal).unwrap().iter().map(|edge| edge.to).collect();
            needs.extend(below);
            next += 1;
        }
        Self { pass, of, needs }
    }

    /// Everything is read, whatever went meanwhile.
    fn read(&self, vault: &Vault) {
        for ordinal in &self.needs {
            let why = |error| panic!("snapshot {} cannot be read on: {error}", self.of.sequence);
            vault.get(*ordinal).map(drop).unwrap_or_else(why);
        }
    }
}

/// Sessions and restores that go on between the steps of a pass, in a whole vault.
struct Busy<'a> {
    vault: Vault,
    dice: &'a mut Dice,
    sessions: Vec<(WriteSession, ClientId, Vec<ObjectId>)>,
    readers: Vec<Restore>,
    next: u8,
    /// At which step, counted from now, the pass is ended.
    ends: usize,
}

impl Busy<'_> {
    fn act(&mut self) {
        let vault = self.vault.clone();
        let at = self.dice.index(self.sessions.len());
        let reader = self.dice.index(self.readers.len());
        match self.dice.index(12) {
            8 if self.readers.len() < 3 => {
                let rows = vault.snapshots(None).unwrap();
                if !rows.is_empty() {
                    self.readers.push(Restore::begin(&vault, rows[self.dice.index(rows.len())].clone()));
                }
            }
            9 if !self.readers.is_empty() => self.readers[reader].read(&vault),
            // Seldom: what is of interest lasts over several passes.
            10 if !self.readers.is_empty() && self.dice.index(20) == 0 => {
                let done = self.readers.remove(reader);
                done.read(&vault);
            }
            11 if !self.readers.is_empty() && self.dice.index(20) == 0 => {
                self.readers[reader].pass.renew();
                if !vault.snapshots(None).unwrap().contains(&self.readers[reader].of) {
                    self.readers.remove(reader);
                }
            }
            0 | 1 if self.sessions.len() < 3 => {
                self.next += 1;
                let client = ClientId([200 + self.dice.index(3) as u8; 16]);
                // A newer session of a client ends the older.
                self.sessions.retain(|(_, of, _)| *of != client);
                let session = vault.begin(SessionId([self.next; 16]), client);
                self.sessions.push((session, client, Vec::new()));
            }
            _ if self.sessions.is_empty() => {}
            2 | 3 => {
                let (session, _, known) = &mut self.sessions[at];
                let sealed =
                    chunk(self.dice.index(16) as u32, 2_000 + self.dice.index(3_000) / 1_000 * 1_000);
                known.push(append(&vault, session, &sealed));
            }
            4 => {
                let sealed = chunk(self.dice.index(16) as u32, 2_000);
                if let Some(ordinal) = vault.ordinal(&sealed.header.id).unwrap()
                    && vault.claim(ordinal).unwrap()
                {
                    self.sessions[at].2.push(sealed.header.id);
                }
            }
            5 if !self.sessions[at].2.is_empty() => {
                let (session, _, known) = &mut self.sessions[at];
                let children: Vec<ObjectId> =
                    (0..1 + self.dice.index(5)).map(|_| known[self.dice.index(known.len())]).collect();
                let id = append(&vault, session, &node(&children, "n"));
                known.push(id);
            }
            6 if !self.sessions[at].2.is_empty() => {
                let (mut session, client, known) = self.sessions.remove(at);
                let root = append(&vault, &mut session, &node(&known, "root"));
                commit(&vault, &mut session, client, root).unwrap();
            }
            7 if self.dice.index(4) == 0 => drop(self.sessions.remove(at)),
            _ => {}
        }
    }
}

impl Watch for Busy<'_> {
    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        if self.ends == 0 {
            return Err(StoreError::Interrupted);
        }
        self.ends -= 1;
        // At the others the vault is locked.
        let locked = matches!(step, Step::Unlisted | Step::Relocated | Step::Indexed | Step::Switched);
        if !locked {
            (0..self.dice.index(6)).for_each(|_| self.act());
        }
        Ok(())
    }
}

fn one_vault(seed: u64) {
    let mut dice = Dice::of(seed, 0);
    let mut yard = Yard::new();
    let mut next = 0;
    let (mut left, mut reading) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let rows = yard.vault().snapshots(None).unwrap();
        for _ in 0..dice.index(3).min(rows.len()) {
            yard.forget(&rows[dice.index(rows.len())]);
        }
        let ends = if dice.index(3) == 0 { dice.index(16) } else { usize::MAX };
        let vault = yard.vault().clone();
        let mut busy = Busy { vault, dice: &mut dice, sessions: left, readers: reading, next, ends };
        (0..6).for_each(|_| busy.act());
        let result = yard.reclaim_watched(&mut busy);
        assert!(matches!(result, Ok(_) | Err(StoreError::Interrupted)), "BACKHAUL_SEED={seed}: {result:?}");
        (next, left, reading) = (busy.next, busy.sessions, busy.readers);
        drop(busy.vault);
        reading.iter().for_each(|restore| restore.read(yard.vault()));
        yard.assert_whole();
        if dice.index(3) == 0 {
            (left, reading) = (Vec::new(), Vec::new());
            yard.crash();
            yard.assert_whole();
        }
    }
    drop((left, reading));
    (0..3).for_each(|_| drop(yard.reclaim()));
    yard.assert_whole();
}

#[test]
fn random_vaults() {
    let first = number("BACKHAUL_SEED", 1);
    for seed in first..first + number("BACKHAUL_VAULTS", 40) {
        one_vault(seed);
    }
}
