//! Who has been asked for what, so that a content that several clients have at the same instant is sent, and stored, once.
//!
//! A session that is told that a content is wanted has *promised* it. Another one that asks for the same meanwhile is not told
//! so, too: its question waits until the content is there, and is answered then. Pure: times are ms since boot, and whom to wake
//! is returned.
//!
//! Invariants:
//! - a content is promised by one session at a time, the last that was told that it is wanted;
//! - whoever waits, waits for what another will send whatever that one is told about anything else, for a session's questions are
//!   answered in their order: so nobody waits in a circle;
//! - no question waits longer than [`PATIENCE_MS`], or for a session that delivers nothing for [`QUIET_MS`], and nobody goes on waiting
//!   for one that is much slower than itself ([`pace`]). What was waited for in vain is asked of whoever waited: the price is a
//!   content that is stored twice, never one that is missing.

use std::collections::HashMap;

mod pace;

use pace::Pace;

/// After so long without an object of it, a session is not waited for.
const QUIET_MS: u64 = 2_000;
/// How long a question waits at most.
const PATIENCE_MS: u64 = 10_000;
/// How long a session waits, all questions together, before it compares others' pace with its own.
const FAIR_MS: u64 = 10_000;
/// Contents that may be promised at once, by one session (more than any has open) and by all, about 16 MiB of memory; what is
/// beyond may be asked of several sessions.
const OWN_PROMISES_MAX: usize = 1 << 16;
const PROMISES_MAX: usize = 1 << 19;

/// A session that backs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Party(u64);

/// A content that the vault lacks, by the prefix of its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lacking {
    pub prefix: u64,
    /// It was promised before the vault was looked at.
    pub was_promised: bool,
}

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is answered: what is lacking is wanted, and promised.
    Answer,
    /// It waits until its session is woken, or so many ms.
    Wait(u64),
    /// Something has come since the vault was looked at: look again.
    LookAgain,
}

/// What the oldest question of a session waits for.
#[derive(Debug, Clone, Copy)]
struct Awaited {
    prefix: u64,
    since: u64,
}

/// How a session stands.
#[derive(Debug, Default)]
struct Standing {
    /// When it delivered, or was asked for something, last.
    lively: u64,
    pace: Pace,
    /// How much it has promised.
    promises: usize,
    /// Since when its oldest question waits, for whatever.
    since: Option<u64>,
    awaits: Option<Awaited>,
    /// How long it has waited.
    waited: u64,
}

/// All promises of the sessions of one vault.
#[derive(Debug, Default)]
pub(super) struct Promises {
    next: u64,
    parties: HashMap<Party, Standing>,
    promised: HashMap<u64, Party>,
    waiting: HashMap<u64, Vec<Party>>,
}

impl Promises {
    /// A session begins.
    pub fn join(&mut self) -> Party {
        let party = Party(self.next);
        self.next += 1;
        self.parties.insert(party, Standing::default());
        party
    }

    /// It is over, and delivers nothing any more. Returns whom to wake.
    pub fn leave(&mut self, party: Party, now: u64) -> Vec<Party> {
        self.stop_waiting(party, now);
        self.parties.remove(&party);
        self.promised.retain(|_, by| *by != party);
        self.make_small();
        let promised = &self.promised;
        self.waiting.extract_if(|prefix, _| !promised.contains_key(prefix)).flat_map(|(_, who)| who).collect()
    }

    /// Which of these are promised, by place.
    pub fn among(&self, prefixes: &[u64]) -> Vec<usize> {
        (0..prefixes.len()).filter(|n| self.promised.contains_key(&prefixes[*n])).collect()
    }

    /// What becomes of a session's oldest question, of which the vault lacks these, in the order in which they will be sent.
    pub fn decide(&mut self, party: Party, lacking: &[Lacking], now: u64) -> Decision {
        self.stop_waiting(party, now);
        if lacking.iter().any(|one| one.was_promised && !self.promised.contains_key(&one.prefix)) {
            return Decision::LookAgain;
        }
        let mut worth = HashMap::new();
        // The last of them comes last.
        let last = lacking.iter().rev().find_map(|one| {
            let by = *self.promised.get(&one.prefix)?;
            let until = *worth.entry(by).or_insert_with(|| self.until(party, by, now));
            until.map(|until| (one.prefix, until))
        });
        let Some(standing) = self.parties.get_mut(&party) else { return Decision::Answer };
        if let Some((prefix, until)) = last {
            standing.since.get_or_insert(now);
            standing.awaits = Some(Awaited { prefix, since: now });
            self.waiting.entry(prefix).or_default().push(party);
            return Decision::Wait(until - now);
        }
        standing.since = None;
        if !lacking.is_empty() {
            standing.lively = now;
            if standing.promises == 0 {
                standing.pace.begin(now);
            }
        }
        lacking.iter().for_each(|one| self.promise(party, one.prefix));
        Decision::Answer
    }

    /// An object of so many bytes of content has come from a session, and is in the vault with these contents. Returns whom to wake.
    pub fn arrived(
        &mut self,
        party: Party,
        bytes: u64,
        prefixes: impl Iterator<Item = u64>,
        now: u64,
    ) -> Vec<Party> {
        let (mut woken, mut has_content) = (Vec::new(), false);
        for prefix in prefixes {
            has_content = true;
            self.kept(prefix);
            woken.extend(self.waiting.remove(&prefix).into_iter().flatten());
        }
        if let Some(standing) = self.parties.get_mut(&party) {
            standing.lively = now;
            match has_content {
                true => standing.pace.delivered(bytes, now),
                false => standing.pace.skip(now),
            }
        }
        self.make_small();
        woken
    }

    fn promise(&mut self, party: Party, prefix: u64) {
        self.kept(prefix);
        let Some(standing) = self.parties.get_mut(&party) else { return };
        if standing.promises < OWN_PROMISES_MAX && self.promised.len() < PROMISES_MAX {
            standing.promises += 1;
            self.promised.insert(prefix, party);
        }
    }

    /// Nobody is to send this any more.
    fn kept(&mut self, prefix: u64) {
        let by = self.promised.remove(&prefix);
        if let Some(standing) = by.and_then(|by| self.parties.get_mut(&by)) {
            standing.promises -= 1;
        }
    }

    /// Until when a session waits for another now; none where it does not.
    fn until(&self, party: Party, other: Party, now: u64) -> Option<u64> {
        if party == other {
            return None;
        }
        let (theirs, ours) = (self.parties.get(&other)?, self.parties.get(&party)?);
        if ours.waited >= FAIR_MS {
            // Whoever does not know how fast it is itself finds out; of another it takes waiting for that.
            if ours.pace.is_unknown() || theirs.pace.is_much_slower_than(&ours.pace) {
                return None;
            }
        }
        let until = (theirs.lively + QUIET_MS).min(ours.since.unwrap_or(now) + PATIENCE_MS);
        (until > now).then_some(until)
    }

    fn stop_waiting(&mut self, party: Party, now: u64) {
        let Some(standing) = self.parties.get_mut(&party) else { return };
        let Some(Awaited { prefix, since }) = standing.awaits.take() else { return };
        standing.waited += now - since;
        if let Some(waiting) = self.waiting.get_mut(&prefix) {
            waiting.retain(|one| *one != party);
            if waiting.is_empty() {
                self.waiting.remove(&prefix);
            }
        }
    }

    /// What was there for many is given back when none is left.
    fn make_small(&mut self) {
        if self.promised.is_empty() && self.promised.capacity() > 4_096 {
            self.promised = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests;
