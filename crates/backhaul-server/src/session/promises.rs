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
//! - nobody waits long for a session that delivers nothing, or for ever for one that is slow: then it sends the content itself, and
//!   does not wait for that session again. The price is a content that is stored twice, never one that is missing.

use std::collections::HashMap;

/// After so long without an object of it, a session is not waited for.
const QUIET_MS: u64 = 2_000;
/// How long a question waits at most.
const PATIENCE_MS: u64 = 10_000;
/// Contents that may be promised at once, about 16 MiB of memory; what is beyond may be asked of several sessions.
const PROMISES_MAX: usize = 1 << 19;

/// A session that backs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Party(u64);

/// A content that the vault lacks, by the prefix of its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lacking {
    pub prefix: u64,
    /// Another session had promised it before the vault was looked at.
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

/// How a session stands.
#[derive(Debug, Default)]
struct Standing {
    /// When it delivered, or was asked for something, last.
    lively: u64,
    /// Since when its oldest question waits.
    since: Option<u64>,
    /// For what.
    awaits: Option<u64>,
    /// Those that it has waited for in vain.
    tired_of: Vec<Party>,
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
    pub fn leave(&mut self, party: Party) -> Vec<Party> {
        self.stop_waiting(party);
        self.parties.remove(&party);
        self.promised.retain(|_, by| *by != party);
        self.make_small();
        let promised = &self.promised;
        self.waiting.extract_if(|prefix, _| !promised.contains_key(prefix)).flat_map(|(_, who)| who).collect()
    }

    /// Which of these others have promised, by place.
    pub fn of_others(&self, party: Party, prefixes: &[u64]) -> Vec<usize> {
        if self.parties.len() < 2 || self.promised.is_empty() {
            return Vec::new();
        }
        let by_another = |prefix| self.promised.get(prefix).is_some_and(|by| *by != party);
        (0..prefixes.len()).filter(|n| by_another(&prefixes[*n])).collect()
    }

    /// What becomes of a session's oldest question, of which the vault lacks these, in the order in which they will be sent.
    pub fn decide(&mut self, party: Party, lacking: &[Lacking], now: u64) -> Decision {
        self.stop_waiting(party);
        let mut until = None;
        for Lacking { prefix, was_promised } in lacking {
            match self.promised.get(prefix) {
                Some(by) if *by == party => {}
                Some(by) => match self.until(party, *by, now) {
                    // The last of them comes last.
                    Some(time) => until = Some((*prefix, time)),
                    None => {}
                },
                None if *was_promised => return Decision::LookAgain,
                None => {}
            }
        }
        let Some(standing) = self.parties.get_mut(&party) else { return Decision::Answer };
        if let Some((prefix, until)) = until {
            standing.since.get_or_insert(now);
            standing.awaits = Some(prefix);
            self.waiting.entry(prefix).or_default().push(party);
            return Decision::Wait(until - now);
        }
        (standing.since, standing.lively) = (None, now);
        for Lacking { prefix, .. } in lacking {
            if self.promised.len() < PROMISES_MAX || self.promised.contains_key(prefix) {
                self.promised.insert(*prefix, party);
            }
        }
        Decision::Answer
    }

    /// Objects of a session are in the vault, with these contents. Returns whom to wake.
    pub fn arrived(&mut self, party: Party, prefixes: impl Iterator<Item = u64>, now: u64) -> Vec<Party> {
        if let Some(standing) = self.parties.get_mut(&party) {
            standing.lively = now;
        }
        let mut woken = Vec::new();
        for prefix in prefixes {
            self.promised.remove(&prefix);
            woken.extend(self.waiting.remove(&prefix).into_iter().flatten());
        }
        self.make_small();
        woken
    }

    /// Until when a session waits for another; not at all for one of which it is tired, from now on or since before.
    fn until(&mut self, party: Party, other: Party, now: u64) -> Option<u64> {
        let quiet = self.parties.get(&other)?.lively + QUIET_MS;
        let standing = self.parties.get_mut(&party)?;
        let until = quiet.min(standing.since.unwrap_or(now) + PATIENCE_MS);
        if standing.tired_of.contains(&other) {
            return None;
        }
        if until <= now {
            standing.tired_of.push(other);
            return None;
        }
        Some(until)
    }

    fn stop_waiting(&mut self, party: Party) {
        let awaited = self.parties.get_mut(&party).and_then(|standing| standing.awaits.take());
        if let Some(prefix) = awaited
            && let Some(waiting) = self.waiting.get_mut(&prefix)
        {
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
