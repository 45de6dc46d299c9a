//! A new version of something (a policy, an agent) reaches the clients in waves, and none if it does harm.
//!
//! Each wave takes in more clients, and is opened when the one before has shown that the version is good:
//! - **enough finishers**: clients of this wave that applied the version and then finished a run: as many as the
//!   rules say, or all of the wave if it is smaller. A client that is not there has not failed; it is waited for;
//! - **soak**: the wave has been open for a while;
//! - **few failures**: of all finishers so far none has failed, or the upper 95 % bound of the failure rate is not
//!   above what is allowed.
//!
//! Why none suffices: five finishers without a failure have an upper bound of 43 %, and it takes 189 to get to 2 %.
//! A fleet of 100 would never get anywhere. What protects it instead is that each wave is small beside the next one
//! and is watched just the same; a version that fails seldom is halted when there are enough of its failures.
//! With a failure among the finishers the bound is asked for: then there is evidence, and it should be outweighed.
//!
//! It halts when the *lower* bound is above what is allowed (a single failure among the first eight finishers is
//! enough at 2 %), or after three failures of the same code in a row, whosever they are: the second and third may
//! come from the same client. Then everybody gets the previous version, until an operator resumes it.
//!
//! What is allowed is the greater of [`RolloutRules::max_failure`] and 2 % more than the previous version's
//! failure rate certainly was (its lower bound): a version is not blamed for what was broken before.
//!
//! The order of the clients is a hash of key and version. When a wave of p % is opened, the first p % of them are
//! in, and at least one more than before; whoever joins later is in if its place is before that of the last one.

mod explain;
mod gate;
mod member;
#[cfg(test)]
mod tests;
mod wilson;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use member::{Key, Member, Progress, place};

/// A client, by the 16 bytes of its id.
type ClientKey = [u8; 16];

/// Who is taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wave {
    /// These.
    Named(Vec<ClientKey>),
    /// So many of a hundred, with those of the waves before.
    Percent(u8),
}

/// How carefully a version is brought out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutRules {
    /// One after the other. If the last is not all clients, all clients come after it.
    pub waves: Vec<Wave>,
    /// Clients of a wave that must have finished a run before the next. At least 1 is asked for.
    pub min_finishers: u32,
    /// Seconds that a wave is open before the next.
    pub soak: i64,
    /// Failure rate that is allowed in any case, 0 to 1.
    pub max_failure: f64,
}

impl Default for RolloutRules {
    fn default() -> Self {
        let waves = vec![Wave::Percent(5), Wave::Percent(25), Wave::Percent(100)];
        Self { waves, min_finishers: 5, soak: 86_400, max_failure: 0.02 }
    }
}

/// What the previous version's runs came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Runs that failed.
    pub failed: u32,
    /// All runs.
    pub total: u32,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a snapshot.
    Succeeded,
    /// Without.
    Failed {
        /// What kind of failure: those that are alike have the same.
        code: u32,
    },
}

/// Why a version is not given out any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Halt {
    /// Too many clients failed.
    Rate {
        /// So many.
        failed: u32,
        /// Of so many.
        finishers: u32,
        /// The failure rate is hardly below this, in thousandths.
        at_least: u32,
        /// And is allowed to be this, in thousandths.
        allowed: u32,
    },
    /// The same failure again and again.
    Same {
        /// Which.
        code: u32,
        /// How often in a row.
        times: u32,
    },
}

/// What a step has brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutEvent {
    /// The clients of a wave are to get the version.
    Opened {
        /// Its index.
        wave: usize,
    },
    /// Everybody is to get the previous version.
    Halted {
        /// Why.
        why: Halt,
    },
    /// Everybody is to get the version, and it is watched no longer.
    Completed,
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waves are opened.
    Running,
    /// Nobody gets the version.
    Halted(Halt),
    /// Everybody gets it.
    Completed,
}

/// A version on its way to the clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    version: u64,
    previous: u64,
    rules: RolloutRules,
    baseline: Baseline,
    members: BTreeMap<Key, Member>,
    state: State,
    /// Waves that have been opened, and when the last one was.
    open: usize,
    opened: i64,
    /// The last place in the order that is in; none while no share of the clients is.
    mark: Option<u64>,
    /// The failures of one code at the end of all finished runs.
    same: Option<(u32, u32)>,
    /// When a run of the version last finished.
    heard: Option<i64>,
}

impl Rollout {
    /// Begins to bring out a version; the first step opens the first wave. Clients that have neither version get
    /// the previous one.
    pub fn begin(
        version: u64,
        previous: u64,
        mut rules: RolloutRules,
        baseline: Baseline,
        clients: impl Iterator<Item = ClientKey>,
        now: i64,
    ) -> Self {
        if !matches!(rules.waves.last(), Some(Wave::Percent(100..))) {
            rules.waves.push(Wave::Percent(100));
        }
        let members = clients.map(|client| (Key(client), Member::new(None))).collect();
        let (state, open, mark, same, heard) = (State::Running, 0, None, None, None);
        Self { version, previous, rules, baseline, members, state, open, opened: now, mark, same, heard }
    }

    /// The version that is brought out.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version before.
    pub fn previous(&self) -> u64 {
        self.previous
    }

    /// Where it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The version that a client shall have now.
    pub fn offer(&self, client: ClientKey) -> u64 {
        let in_wave = || self.members.get(&Key(client)).is_some_and(|member| member.wave.is_some());
        match self.state {
            State::Completed => self.version,
            State::Running if in_wave() => self.version,
            State::Running | State::Halted(_) => self.previous,
        }
    }

    /// A client is new. It is in the open wave if its place in the order says so.
    pub fn joined(&mut self, client: ClientKey) {
        let by_place = self.mark.is_some_and(|mark| place(&client, self.version) <= mark);
        let named = |wave: &Wave| matches!(wave, Wave::Named(clients) if clients.contains(&client));
        let is_in = by_place || self.rules.waves.iter().take(self.open).any(named);
        let wave = self.open.checked_sub(1).filter(|_| is_in);
        self.members.entry(Key(client)).or_insert(Member::new(wave));
    }

    /// A client is gone, and what it has shown with it.
    pub fn removed(&mut self, client: ClientKey) {
        self.members.remove(&Key(client));
    }

    /// Everybody else is gone.
    pub fn keep_only(&mut self, is_here: impl Fn(&ClientKey) -> bool) {
        self.members.retain(|key, _| is_here(&key.0));
    }

    /// A client has applied a version, or could not (with what code): then it counts as one that failed. It may
    /// say at each contact which version it goes by.
    pub fn applied(&mut self, client: ClientKey, version: u64, result: Result<(), u32>) {
        let Some(member) = self.taking_part(client, version) else { return };
        match result {
            Ok(()) if member.progress == Progress::Waiting => member.progress = Progress::Applied,
            Ok(()) => {}
            Err(code) => {
                if !member.has_finished() {
                    member.progress = Progress::Failed;
                }
                self.note(Some(code));
            }
        }
    }

    /// A client has finished a run by a version. Its first by the new one counts; the others only for failures of
    /// one code in a row.
    pub fn finished(&mut self, client: ClientKey, version: u64, outcome: Outcome, now: i64) {
        let Some(member) = self.taking_part(client, version) else { return };
        if member.progress == Progress::Waiting {
            return;
        }
        let (progress, code) = match outcome {
            Outcome::Succeeded => (Progress::Succeeded, None),
            Outcome::Failed { code } => (Progress::Failed, Some(code)),
        };
        if !member.has_finished() {
            member.progress = progress;
        }
        self.heard = Some(now);
        self.note(code);
    }

    /// What time and the finishers make of it.
    pub fn step(&mut self, now: i64) -> Vec<RolloutEvent> {
        let mut events = Vec::new();
        // A clock that was set back: the soak begins again, rather than last for years.
        self.opened = self.opened.min(now);
        while self.state == State::Running {
            if self.open == 0 {
                self.open_next(now, &mut events);
                continue;
            }
            let gate = self.gate(now);
            if let Some(why) = self.harm(&gate) {
                self.state = State::Halted(why);
                events.push(RolloutEvent::Halted { why });
            } else if gate.members == 0 && gate.outside > 0 && self.takes_share() {
                // All that it took in have been removed: it has shown nothing.
                self.fill(self.open - 1);
                self.opened = now;
            } else if !self.is_passed(&gate) {
                break;
            } else if self.open < self.rules.waves.len() {
                self.open_next(now, &mut events);
            } else {
                self.state = State::Completed;
                events.push(RolloutEvent::Completed);
            }
        }
        events
    }

    /// An operator wants it to go on, halted or not: the clients that were in get the version again, and all that
    /// was counted is forgotten. The wave that was open begins anew. A completed one stays as it is.
    pub fn resume(&mut self, now: i64) {
        let have_it = match self.state {
            State::Completed => return,
            State::Running => Progress::Applied,
            // They have been given the previous one, and must apply it again.
            State::Halted(_) => Progress::Waiting,
        };
        (self.state, self.opened, self.same, self.heard) = (State::Running, now, None, None);
        for member in self.members.values_mut() {
            if member.progress != Progress::Waiting {
                member.progress = have_it;
            }
        }
    }

    /// The client, if this version is being tried on it.
    fn taking_part(&mut self, client: ClientKey, version: u64) -> Option<&mut Member> {
        let running = self.state == State::Running && version == self.version;
        self.members.get_mut(&Key(client)).filter(|member| running && member.wave.is_some())
    }

    fn note(&mut self, code: Option<u32>) {
        self.same = code.map(|code| match self.same {
            Some((last, times)) if last == code => (code, times.saturating_add(1)),
            _ => (code, 1),
        });
    }

    fn open_next(&mut self, now: i64, events: &mut Vec<RolloutEvent>) {
        self.fill(self.open);
        events.push(RolloutEvent::Opened { wave: self.open });
        (self.open, self.opened) = (self.open + 1, now);
    }

    fn takes_share(&self) -> bool {
        matches!(self.rules.waves.get(self.open - 1), Some(Wave::Percent(_)))
    }

    /// Takes the clients of a wave in.
    fn fill(&mut self, wave: usize) {
        let percent = match self.rules.waves.get(wave) {
            Some(Wave::Percent(percent)) => usize::from(*percent).min(100),
            Some(Wave::Named(clients)) => {
                for client in clients {
                    if let Some(member) = self.members.get_mut(&Key(*client)) {
                        member.wave = member.wave.or(Some(wave));
                    }
                }
                return;
            }
            None => return,
        };
        let version = self.version;
        let mut outside: Vec<(u64, Key)> = self
            .members
            .iter()
            .filter(|(_, member)| member.wave.is_none())
            .map(|(key, _)| (place(&key.0, version), *key))
            .collect();
        outside.sort_unstable();
        let all = self.members.len();
        let wanted = (all * percent).div_ceil(100).saturating_sub(all - outside.len()).max(1);
        for (place, key) in outside.into_iter().take(wanted) {
            self.mark = self.mark.max(Some(place));
            self.members.insert(key, Member::new(Some(wave)));
        }
        if percent == 100 {
            self.mark = Some(u64::MAX);
        }
    }
}
