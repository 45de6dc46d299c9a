//! What a client may read and refer to: what its snapshots reach, what it uploaded, what it has proven.

use std::collections::HashMap;

use backhaul_object::ids::ClientId;

use crate::error::StoreError;
use crate::index::{Edge, Ordinal};
use crate::vault::{State, Vault};

/// Rows of the index read at once.
const BLOCK: u64 = 65_536;

/// A set of objects, and of single members of bundles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    whole: Vec<u64>,
    members: HashMap<Ordinal, Vec<u8>>,
}

impl Owned {
    /// True when there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.whole.iter().all(|word| *word == 0) && self.members.is_empty()
    }

    /// True for a whole object.
    pub fn has(&self, ordinal: Ordinal) -> bool {
        self.whole.get(ordinal.0 as usize / 64).is_some_and(|word| word >> (ordinal.0 % 64) & 1 == 1)
    }

    /// True for a member of a bundle, or the whole of it.
    pub fn has_member(&self, bundle: Ordinal, member: u16) -> bool {
        let bit =
            |bits: &Vec<u8>| bits.get(member as usize / 8).is_some_and(|byte| byte >> (member % 8) & 1 == 1);
        self.has(bundle) || self.members.get(&bundle).is_some_and(bit)
    }

    /// True when everything that an edge uses is in the set.
    pub fn covers(&self, edge: &Edge) -> bool {
        if edge.members.is_empty() || self.has(edge.to) {
            return self.has(edge.to);
        }
        let Some(mine) = self.members.get(&edge.to) else { return false };
        edge.members.iter().enumerate().all(|(i, byte)| byte & !mine.get(i).unwrap_or(&0) == 0)
    }

    /// The members of a bundle that are in the set, when it is not there as a whole.
    pub fn part(&self, bundle: Ordinal) -> Option<&[u8]> {
        self.members.get(&bundle).map(Vec::as_slice)
    }

    /// Adds a whole object.
    pub fn add(&mut self, ordinal: Ordinal) {
        let word = ordinal.0 as usize / 64;
        if self.whole.len() <= word {
            self.whole.resize(word + 1, 0);
        }
        self.whole[word] |= 1 << (ordinal.0 % 64);
    }

    /// Adds one member of a bundle.
    pub fn add_member(&mut self, bundle: Ordinal, member: u16) {
        let mut bits = vec![0; member as usize / 8 + 1];
        bits[member as usize / 8] = 1 << (member % 8);
        self.add_edge(&Edge { to: bundle, members: bits });
    }

    /// Adds what an edge uses.
    pub fn add_edge(&mut self, edge: &Edge) {
        if edge.members.is_empty() {
            return self.add(edge.to);
        }
        let mine = self.members.entry(edge.to).or_default();
        if mine.len() < edge.members.len() {
            mine.resize(edge.members.len(), 0);
        }
        mine.iter_mut().zip(&edge.members).for_each(|(a, b)| *a |= b);
    }

    /// Adds all of another set.
    pub fn add_all(&mut self, other: &Self) {
        if self.whole.len() < other.whole.len() {
            self.whole.resize(other.whole.len(), 0);
        }
        self.whole.iter_mut().zip(&other.whole).for_each(|(mine, theirs)| *mine |= theirs);
        for (bundle, members) in &other.members {
            self.add_edge(&Edge { to: *bundle, members: members.clone() });
        }
    }

    /// Whole objects and bundles used in part.
    pub(crate) fn reaches(&self, ordinal: Ordinal) -> bool {
        self.has(ordinal) || self.members.contains_key(&ordinal)
    }

    /// One pass from the highest number down closes the set under references: children have lower numbers.
    pub(crate) fn close(&mut self, state: &State) -> Result<(), StoreError> {
        let mut to = state.index.objects();
        while to > 0 {
            let from = to.saturating_sub(BLOCK);
            for parent in state.index.parents(from, to)?.iter().rev() {
                if self.has(parent.ordinal) {
                    for edge in state.index.edges_of(parent)? {
                        self.add_edge(&edge);
                    }
                }
            }
            to = from;
        }
        Ok(())
    }
}

impl Vault {
    /// What `client` may read and refer to now. Time grows with the vault's objects, not their bytes.
    ///
    /// # Errors
    /// Catalog or index cannot be read.
    pub fn owned(&self, client: ClientId) -> Result<Owned, StoreError> {
        let state = self.state();
        let mut owned = Owned::default();
        let (mut from, count) = (0, state.index.objects());
        while from < count {
            let to = count.min(from + BLOCK);
            for (number, at) in (from..to).zip(state.index.locations(from, to)?) {
                if at.len > 0 && state.packs.get(&at.pack).is_some_and(|pack| pack.client == client) {
                    owned.add(Ordinal(number));
                }
            }
            from = to;
        }
        for row in state.catalog.snapshots_of(client)? {
            owned.add(row.ordinal);
        }
        let unsaved = state.proven.iter().filter(|p| p.client == client).copied();
        for proven in state.catalog.proven(client)?.into_iter().chain(unsaved) {
            match proven.member {
                Some(member) => owned.add_member(proven.ordinal, member),
                None => owned.add(proven.ordinal),
            }
        }
        owned.close(&state)?;
        Ok(owned)
    }

    /// Everything a snapshot (or other object) reaches.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn reach(&self, from: Ordinal) -> Result<Owned, StoreError> {
        let mut reached = Owned::default();
        reached.add(from);
        reached.close(&self.state())?;
        Ok(reached)
    }
}
