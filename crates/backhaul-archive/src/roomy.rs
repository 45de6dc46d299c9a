//! What has no bound, in bounded memory: numbers by key, bytes by place, and bytes by number. They are in memory while they are few, and go on in a
//! file without a name. Hard links need them: whoever saves or restores a tree knows only at its end which of its files have
//! further names to come.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

/// Keys that are held in memory: 16 MiB at most.
const HELD_MAX: usize = 250_000;
/// Bytes that are held in memory.
const BYTES_MAX: usize = 8 << 20;
/// Bytes of a slot of a table: a key of two numbers, the value, and one of these.
const SLOT: usize = 32;
/// Of a slot that never had a key.
const FREE: u64 = 0;
/// Of a key with its value.
const THERE: u64 = 1;
/// Of a key whose value was taken away: others may lie behind it.
const GONE: u64 = 2;

/// What a value is found by.
pub(crate) type Key = (u64, u64);

/// A file that nobody else sees, where there is room on a disk: `/tmp` may be memory.
fn unnamed() -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let open = |dir: &Path| rustix::fs::openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR);
    Ok(open(Path::new("/var/tmp")).or_else(|_| open(&std::env::temp_dir()))?.into())
}

/// Numbers by key.
pub(crate) struct Numbers {
    held: HashMap<Key, u64>,
    held_max: usize,
    table: Option<Table>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self::holding(HELD_MAX)
    }
}

impl Numbers {
    fn holding(held_max: usize) -> Self {
        Self { held: HashMap::new(), held_max, table: None }
    }

    /// # Errors
    /// The file cannot be read.
    pub(crate) fn get(&self, key: Key) -> io::Result<Option<u64>> {
        match &self.table {
            Some(table) => table.get(key),
            None => Ok(self.held.get(&key).copied()),
        }
    }

    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn set(&mut self, key: Key, value: u64) -> io::Result<()> {
        if self.table.is_none() && self.held.len() >= self.held_max {
            match Table::of(&self.held) {
                Ok(table) => {
                    self.table = Some(table);
                    self.held = HashMap::new();
                }
                // Without a place for a file it goes on in memory.
                Err(_) => self.held_max = usize::MAX,
            }
        }
        match &mut self.table {
            Some(table) => table.put(key, value, THERE),
            None => {
                self.held.insert(key, value);
                Ok(())
            }
        }
    }

    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn remove(&mut self, key: Key) -> io::Result<()> {
        match &mut self.table {
            Some(table) => table.put(key, 0, GONE),
            None => {
                self.held.remove(&key);
                Ok(())
            }
        }
    }
}

/// Slots in a file, twice as many as are taken: a key lies at the place that its hash says, or in the next free slot behind it.
struct Table {
    file: File,
    /// A power of two.
    slots: u64,
    taken: u64,
    hasher: RandomState,
}

impl Table {
    fn of(held: &HashMap<Key, u64>) -> io::Result<Self> {
        let mut table = Self::empty(4 * (held.len() as u64).next_power_of_two(), RandomState::new())?;
        held.iter().try_for_each(|(key, value)| table.put(*key, *value, THERE))?;
        Ok(table)
    }

    fn empty(slots: u64, hasher: RandomState) -> io::Result<Self> {
        let file = unnamed()?;
        file.set_len(slots * SLOT as u64)?;
        Ok(Self { file, slots, taken: 0, hasher })
    }

    /// The slot of a key, with its value and what is said of it.
    fn find(&self, key: Key) -> io::Result<(u64, u64, u64)> {
        let mut at = self.hasher.hash_one(key) & (self.slots - 1);
        loop {
            let mut slot = [0; SLOT];
            self.file.read_exact_at(&mut slot, at * SLOT as u64)?;
            let [one, other, value, state] = numbers(&slot);
            if state == FREE || (one, other) == key {
                return Ok((at, value, state));
            }
            at = (at + 1) & (self.slots - 1);
        }
    }

    fn get(&self, key: Key) -> io::Result<Option<u64>> {
        let (_, value, state) = self.find(key)?;
        Ok((state == THERE).then_some(value))
    }

    fn put(&mut self, key: Key, value: u64, state: u64) -> io::Result<()> {
        if self.taken * 2 >= self.slots {
            self.grow()?;
        }
        let (at, _, before) = self.find(key)?;
        let slot = [key.0, key.1, value, state].map(u64::to_le_bytes).concat();
        self.file.write_all_at(&slot, at * SLOT as u64)?;
        self.taken += u64::from(before == FREE);
        Ok(())
    }

    /// Moves all into a table of twice the size.
    fn grow(&mut self) -> io::Result<()> {
        const AT_ONCE: u64 = 4_096;
        let mut larger = Self::empty(self.slots * 2, self.hasher.clone())?;
        let mut room = vec![0; AT_ONCE as usize * SLOT];
        for from in (0..self.slots).step_by(AT_ONCE as usize) {
            let room = &mut room[..AT_ONCE.min(self.slots - from) as usize * SLOT];
            self.file.read_exact_at(room, from * SLOT as u64)?;
            for slot in room.as_chunks::<SLOT>().0 {
                let [one, other, value, state] = numbers(slot);
                if state == THERE {
                    larger.put((one, other), value, state)?;
                }
            }
        }
        *self = larger;
        Ok(())
    }
}

fn numbers(slot: &[u8; SLOT]) -> [u64; 4] {
    let mut all = [0; 4];
    for (number, bytes) in all.iter_mut().zip(slot.as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*bytes);
    }
    all
}

/// Bytes that are put in one after the other, and found by where they are.
pub(crate) struct Pile {
    /// The last of them.
    held: Vec<u8>,
    held_max: usize,
    /// Those before.
    file: Option<File>,
    written: u64,
}

impl Default for Pile {
    fn default() -> Self {
        Self::holding(BYTES_MAX)
    }
}

impl Pile {
    fn holding(held_max: usize) -> Self {
        Self { held: Vec::new(), held_max, file: None, written: 0 }
    }

    /// Returns where they are.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let before = self.held.len();
        let at = self.written + before as u64;
        self.held.extend((bytes.len() as u64).to_le_bytes());
        self.held.extend(bytes);
        if self.held.len() > self.held_max {
            if self.file.is_none() {
                match unnamed() {
                    Ok(file) => self.file = Some(file),
                    // Without a place for a file it goes on in memory.
                    Err(_) => self.held_max = usize::MAX,
                }
            }
            if let Some(file) = &self.file {
                if let Err(error) = file.write_all_at(&self.held, self.written) {
                    // It was not put in: no more is held for it.
                    self.held.truncate(before);
                    return Err(error);
                }
                self.written += self.held.len() as u64;
                self.held.clear();
            }
        }
        Ok(at)
    }

    /// What was put where that returned `at`.
    ///
    /// # Errors
    /// The file cannot be read, or nothing was put there.
    pub(crate) fn at(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut len = [0; 8];
        self.read(&mut len, at)?;
        let mut bytes = vec![0; u64::from_le_bytes(len) as usize];
        self.read(&mut bytes, at + 8)?;
        Ok(bytes)
    }

    fn read(&self, room: &mut [u8], at: u64) -> io::Result<()> {
        match (at.checked_sub(self.written), &self.file) {
            (Some(at), _) => {
                let held = self.held.get(at as usize..).and_then(|rest| rest.get(..room.len()));
                room.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            (None, Some(file)) => file.read_exact_at(room, at),
            (None, None) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Bytes by number.
#[derive(Default)]
pub(crate) struct Texts {
    places: Numbers,
    pile: Pile,
}

impl Texts {
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn get(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        self.places.get((number, 0))?.map(|place| self.pile.at(place)).transpose()
    }

    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn set(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let place = self.pile.put(bytes)?;
        self.places.set((number, 0), place)
    }

    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn remove(&mut self, number: u64) -> io::Result<()> {
        self.places.remove((number, 0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Act {
        Set(Key, u64),
        Remove(Key),
    }

    fn act() -> impl Strategy<Value = Act> {
        // Few keys: they meet again.
        let key = (0u64..40, 0u64..8);
        prop_oneof![
            3 => (key.clone(), any::<u64>()).prop_map(|(key, value)| Act::Set(key, value)),
            1 => key.prop_map(Act::Remove),
        ]
    }

    proptest! {
        /// In memory, in a table, and in one that has grown it is the same map.
        #[test]
        fn numbers_are_those_of_a_map(acts in prop::collection::vec(act(), 0..600), held in 0usize..80) {
            let (mut numbers, mut model) = (Numbers::holding(held), HashMap::new());
            for act in &acts {
                match act {
                    Act::Set(key, value) => {
                        numbers.set(*key, *value).unwrap();
                        model.insert(*key, *value);
                    }
                    Act::Remove(key) => {
                        numbers.remove(*key).unwrap();
                        model.remove(key);
                    }
                }
            }
            prop_assert!(numbers.held.len() <= held);
            for one in 0..40 {
                for other in 0..8 {
                    prop_assert_eq!(numbers.get((one, other)).unwrap(), model.get(&(one, other)).copied());
                }
            }
        }

        #[test]
        fn bytes_are_found_where_they_were_put(
            all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..100),
            held in 0usize..3_000,
        ) {
            let mut pile = Pile::holding(held);
            let places: Vec<u64> = all.iter().map(|one| pile.put(one).unwrap()).collect();
            for (place, one) in places.iter().zip(&all) {
                prop_assert_eq!(&pile.at(*place).unwrap(), one);
            }
            prop_assert!(pile.held.len() <= held);
        }
    }

    #[test]
    fn more_than_are_held_go_on_in_a_file() {
        let mut numbers = Numbers::holding(10);
        for n in 0..10_000 {
            numbers.set((n, !n), n).unwrap();
        }
        assert!(numbers.held.is_empty());
        let table = numbers.table.as_ref().unwrap();
        assert!(table.taken == 10_000 && table.slots >= 20_000);
        assert!((0..10_000).all(|n| numbers.get((n, !n)).unwrap() == Some(n)));
        assert_eq!(numbers.get((10_000, 0)).unwrap(), None);
    }
}
