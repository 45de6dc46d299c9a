//! Who may still need what nothing refers to: a pure machine. It knows no clock; it counts marks.

use std::collections::BTreeMap;

use backhaul_object::ids::ClientId;

use backhaul_object::breach::Breach;

use crate::bits::Bits;
use crate::index::Ordinal;

/// Sets that wait at once: one that was seen dead twice, and one that was seen dead once.
const SETS_MAX: usize = 2;

/// Objects that a mark did not reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// Which mark that was.
    pub epoch: u64,
    /// Which objects.
    pub objects: Bits,
}

/// What a guest relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reliance {
    /// Whatever it was told.
    All,
    /// What a client's snapshots reach. While none of these has gone since it came, no mark misses what it may read.
    Snapshots(ClientId),
    /// The same, and one has gone.
    SomeGone,
}

/// Someone who has been told what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guest {
    epoch: u64,
    who: String,
    reliance: Reliance,
}

/// Why nothing may go yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Nothing is condemned.
    Nothing,
    /// It was condemned only by the latest mark.
    Grace,
    /// These began before it was condemned, and are still there.
    Guests(Vec<String>),
}

/// Epochs, guests and what is condemned. Two things are always true:
/// - what is not condemned refers to nothing condemned;
/// - what is there refers to nothing gone.
#[derive(Debug, Clone, Default)]
pub struct Fence {
    /// Marks that were finished.
    epoch: u64,
    tokens: u64,
    guests: BTreeMap<u64, Guest>,
    /// Oldest first.
    condemned: Vec<Condemned>,
    /// Numbers that will never be read again.
    gone: Bits,
    /// Those of them that the index may still list.
    leaving: Bits,
    /// Resurrected since that was last written down.
    resurrected: Vec<Ordinal>,
}

impl Fence {
    /// As it was written down.
    pub fn restore(epoch: u64, condemned: Vec<Condemned>, gone: Bits, leaving: Bits) -> Self {
        Self { epoch, condemned, gone, leaving, ..Self::default() }
    }

    /// Since the mark that was written down, these were resurrected. In the same epoch none of them can have gone: what
    /// says so was not to be written.
    pub fn resume(&mut self, needed: &Bits) {
        self.gone.remove_all(needed);
        self.leaving.remove_all(needed);
        self.condemned.iter_mut().for_each(|set| set.objects.remove_all(needed));
        self.condemned.retain(|set| !set.objects.is_empty());
    }

    /// Marks that were finished.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The sets that wait, oldest first.
    pub fn condemned(&self) -> &[Condemned] {
        &self.condemned
    }

    /// Numbers that will never be read again.
    pub fn gone(&self) -> &Bits {
        &self.gone
    }

    /// Those of them that the index may still list.
    pub fn leaving(&self) -> &Bits {
        &self.leaving
    }

    /// The index lists none of them any more.
    pub fn left(&mut self) {
        self.leaving = Bits::default();
    }

    /// True for what the last mark, or one before it, did not reach.
    pub fn is_condemned(&self, ordinal: Ordinal) -> bool {
        self.condemned.iter().any(|set| set.objects.has(ordinal))
    }

    /// Somebody will be told what is there, or read it; returns a token for [`Fence::leave`].
    pub fn enter(&mut self, who: String) -> u64 {
        self.admit(who, Reliance::All)
    }

    /// Somebody will read what the snapshots of one client reach, and nothing else. It holds back nothing until one of
    /// these goes.
    pub fn enter_reader(&mut self, who: String, of: ClientId) -> u64 {
        self.admit(who, Reliance::Snapshots(of))
    }

    fn admit(&mut self, who: String, reliance: Reliance) -> u64 {
        self.tokens += 1;
        self.guests.insert(self.tokens, Guest { epoch: self.epoch, who, reliance });
        self.tokens
    }

    /// A snapshot of a client goes: whoever reads this client's may be reading it.
    pub fn unmade(&mut self, of: ClientId) {
        let mine = |guest: &&mut Guest| guest.reliance == Reliance::Snapshots(of);
        self.guests.values_mut().filter(mine).for_each(|guest| guest.reliance = Reliance::SomeGone);
    }

    /// A reader has read nothing for long: it gives up what it held back, and reads from now on what is there now.
    pub fn renew(&mut self, token: u64, of: ClientId) {
        if let Some(guest) = self.guests.get_mut(&token) {
            (guest.epoch, guest.reliance) = (self.epoch, Reliance::Snapshots(of));
        }
    }

    /// Nobody acts on what the guest was told any more.
    pub fn leave(&mut self, token: u64) {
        self.guests.remove(&token);
    }

    /// Makes sure that an object stays as long as its claimant does, with all that it refers to. `children` gives
    /// what an object refers to. False when it is gone.
    ///
    /// # Errors
    /// Of `children`; what was resurrected until then stays so.
    pub fn claim<E>(
        &mut self,
        ordinal: Ordinal,
        children: &mut dyn FnMut(Ordinal) -> Result<Vec<Ordinal>, E>,
    ) -> Result<bool, E> {
        if self.gone.has(ordinal) {
            return Ok(false);
        }
        // What is not condemned refers to nothing condemned. Parents are freed last: an error on the way leaves them.
        let mut open = vec![(ordinal, false)];
        while let Some((next, below)) = open.pop() {
            if !self.is_condemned(next) {
                continue;
            }
            if below {
                self.condemned.iter_mut().for_each(|set| {
                    set.objects.remove(next);
                });
                self.resurrected.push(next);
                continue;
            }
            open.push((next, true));
            open.extend(children(next)?.into_iter().map(|child| (child, false)));
        }
        Ok(true)
    }

    /// A mark is finished: of the numbers below `count` it reached `live`. Returns how many were newly condemned.
    pub fn marked(&mut self, live: &Bits, count: u64) -> u64 {
        self.epoch += 1;
        // What was resurrected before may be condemned anew by this mark, with more than it had below it then. What is
        // written down after a mark says it all.
        self.resurrected.clear();
        for set in &mut self.condemned {
            set.objects.remove_all(live);
        }
        self.condemned.retain(|set| !set.objects.is_empty());
        if self.condemned.len() == SETS_MAX {
            return 0;
        }
        let mut dead = live.others(count);
        dead.remove_all(&self.gone);
        for set in &self.condemned {
            dead.remove_all(&set.objects);
        }
        let new = dead.count();
        if new > 0 {
            self.condemned.push(Condemned { epoch: self.epoch, objects: dead });
        }
        new
    }

    /// What may go now: condemned by an earlier mark than the latest, and nobody is left from before that.
    ///
    /// # Errors
    /// Why nothing may.
    pub fn ripe(&self) -> Result<Bits, Wait> {
        let Some(oldest) = self.condemned.first() else { return Err(Wait::Nothing) };
        if Breach::Unfenced.is_on() {
            return Ok(oldest.objects.clone());
        }
        if oldest.epoch >= self.epoch {
            return Err(Wait::Grace);
        }
        let before =
            |guest: &&Guest| guest.epoch < oldest.epoch && !matches!(guest.reliance, Reliance::Snapshots(_));
        let guests: Vec<String> =
            self.guests.values().filter(before).map(|guest| guest.who.clone()).collect();
        if guests.is_empty() { Ok(oldest.objects.clone()) } else { Err(Wait::Guests(guests)) }
    }

    /// Lets go what is still ripe. From here on it is not there, and comes back under another number only.
    ///
    /// # Errors
    /// Why nothing may go.
    pub fn let_go(&mut self) -> Result<Bits, Wait> {
        let ripe = self.ripe()?;
        self.condemned.remove(0);
        self.gone.add_all(&ripe);
        self.leaving.add_all(&ripe);
        Ok(ripe)
    }

    /// Numbers that were resurrected and must be written down together with what was added.
    pub fn resurrected(&self) -> &[Ordinal] {
        &self.resurrected
    }

    /// They are written down.
    pub fn noted(&mut self) {
        self.resurrected.clear();
    }

    /// A number is in use again: its object was lost, not reclaimed.
    pub fn revive(&mut self, ordinal: Ordinal) {
        self.gone.remove(ordinal);
        self.leaving.remove(ordinal);
    }
}

#[cfg(test)]
mod tests;
