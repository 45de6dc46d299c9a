//! One client's reachability history, and what follows from it: how long its runs take, how long it will stay,
//! whether dialling it is of any use, and who had better begin its runs.
//!
//! Of bounded size (see [`Reach`]), because a server may know 100,000 clients. Times are seconds since 1970 by the
//! wall clock, which may jump: a figure may then be wrong for a while, nothing else.

mod auto;
mod days;
mod recommend;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use auto::{Auto, Change, Pending};
pub use days::Share;
pub use recommend::{InWindow, Reasons, Recommendation};

use days::{DAY, Days, HOUR, SPAN, day_of, sane};

/// Two signs of life no further apart than this speak for the time between them: a client that the server dials
/// checks in only every four hours (the agent's safety net), give or take its jitter. If a link's end was seen,
/// the time after it is known to be an absence.
const BRIDGE: i64 = 5 * HOUR;
/// A link that begins so many seconds after the one before goes on with the same stay: agents dial anew to change the
/// pace of their packets, and after a cut.
const REDIALLED: i64 = 60;
/// Days of dials in vain after which a client's own link is used instead.
const IN_VAIN: u8 = 3;
/// A dial this long after the first of a scheduled day belongs to the next one. Less than a day, because a client's
/// moment differs from day to day; more than the hours of any window that closes.
const NEXT_DAY: i64 = 20 * HOUR;
/// Between two dials of a client that is not expected to answer.
const WEEK: i64 = 7 * DAY;
/// Shortest stay that is predicted, in seconds: whoever is here now will not be gone in the same moment.
const SHORTEST_STAY: u64 = 60;

/// Who begins a client's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The server dials.
    Server,
    /// The client asks.
    Client,
    /// Whoever can.
    Hybrid,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Hybrid => "hybrid",
        })
    }
}

/// Whether a client was seen at an address that is not its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nat {
    /// It was seen at an address it says it has.
    No,
    /// At another.
    Yes,
    /// It has not said which it has.
    Unknown,
}

/// Whether a client can run on a battery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HasBattery {
    /// It has one.
    Yes,
    /// It has none.
    No,
    /// It has not said.
    #[default]
    Unknown,
}

/// What a contact tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Fingerprint of the network the client is in; 0 if it is not known.
    pub network: u64,
    /// Is there NAT in between?
    pub nat: Nat,
    /// Has it a battery?
    pub power: HasBattery,
}

/// What became of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialResult {
    /// The client was there.
    Answered,
    /// A machine was there, an agent was not.
    Refused,
    /// Nothing was there.
    Silent,
    /// Somebody else was there.
    Stranger,
}

/// What brought a client its first snapshot after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// The server dialled it.
    Dial,
    /// It was nudged.
    Nudge,
    /// It came by itself.
    CheckIn,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "server's dial",
            Self::Nudge => "nudge",
            Self::CheckIn => "client check-in",
        })
    }
}

/// Scheduled days in a row on which dials were in vain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct InVain {
    days: u8,
    /// When the last of these days began.
    began: i64,
    /// The client has come by itself since the first of them.
    came: bool,
}

/// One client's history: a fixed number of bytes, whatever happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reach {
    days: Days,
    /// Seconds that successful runs took, newest first; 0 for none.
    durations: [u32; 8],
    /// Seconds that the client stayed linked, newest first; 0 for none.
    stretches: [u32; 16],
    /// Networks, and the day each was last seen in; 0 for none.
    networks: [(u32, u32); 8],
    battery: HasBattery,
    /// The last sign of life; 0 if there is none, or a link has ended since.
    seen: i64,
    /// The end of the last stretch of being linked; 0 if there is none.
    unlinked: i64,
    /// The last dial; 0 if there is none.
    dialled: i64,
    in_vain: InVain,
    /// The days it was last late on, newest first; 0 for none.
    late: [u32; 2],
    /// What helped after the last failure, and on which day.
    recovered: Option<(u32, Remedy)>,
}

/// What the memory of a server is planned with.
const _: () = assert!(size_of::<Reach>() <= 600);

impl Reach {
    /// A client of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// The client made contact of any kind by itself: a check-in, a link, a request.
    pub fn contact(&mut self, at: i64, sighting: &Sighting) {
        let at = sane(at);
        self.alive(at);
        self.in_vain.came |= self.in_vain.days > 0;
        if sighting.network != 0 {
            self.saw_network(at, sighting.network);
        }
        if sighting.nat != Nat::Unknown {
            self.days.sighted(at, sighting.nat == Nat::Yes);
        }
        if sighting.power != HasBattery::Unknown {
            self.battery = sighting.power;
        }
    }

    /// A client that is linked still is. Call it now and then, at least before [`Self::recommend`].
    pub fn linked(&mut self, from: i64, to: i64) {
        let (from, to) = (sane(from), sane(to));
        if from <= to {
            self.days.mark(from, to);
            self.seen = to;
        }
    }

    /// A stretch of being linked has ended. One that ended before it began was cut by a clock: it says nothing.
    pub fn online(&mut self, from: i64, to: i64) {
        let (from, to) = (sane(from), sane(to));
        if from <= to {
            self.days.mark(from, to);
            let goes_on = (0..=REDIALLED).contains(&from.saturating_sub(self.unlinked));
            match self.stretches.first_mut() {
                Some(last) if goes_on && *last > 0 => {
                    *last = last.saturating_add(u32::try_from(to - self.unlinked).unwrap_or(u32::MAX));
                }
                _ => push(&mut self.stretches, to - from),
            }
            self.unlinked = to;
        }
        self.seen = 0;
    }

    /// The server dialled.
    pub fn dialled(&mut self, at: i64, result: DialResult) {
        let at = sane(at);
        self.dialled = at;
        self.days.dialled(at, result == DialResult::Answered);
        if result == DialResult::Answered {
            self.in_vain = InVain::default();
            self.alive(at);
            return;
        }
        let since = at.saturating_sub(self.in_vain.began);
        // A day that began in the future was begun by another clock.
        if self.in_vain.days == 0 || !(0..NEXT_DAY).contains(&since) {
            self.in_vain.days = self.in_vain.days.saturating_add(1);
            self.in_vain.began = at;
        }
    }

    /// A run has succeeded, and took so many seconds.
    pub fn ran(&mut self, seconds: u64) {
        push(&mut self.durations, i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// The client has become late. Once for each time it does.
    pub fn was_late(&mut self, at: i64) {
        self.late = [day_of(at), self.late[0]];
    }

    /// The first success after a failure, and what brought it about.
    pub fn recovered(&mut self, at: i64, by: Remedy) {
        self.recovered = Some((day_of(at), by));
    }

    /// Seconds that a run takes: the median of the last 8.
    pub fn duration(&self) -> Option<u64> {
        median(self.durations)
    }

    /// Seconds that the client stays linked: the median of the last 16 times.
    pub fn stretch(&self) -> Option<u64> {
        median(self.stretches)
    }

    /// Seconds that a client which is linked will probably stay: at least a minute; none if it is not known.
    pub fn remaining(&self, linked_since: i64, now: i64) -> Option<u64> {
        let elapsed = u64::try_from(now.saturating_sub(linked_since)).unwrap_or(0);
        Some(self.stretch()?.saturating_sub(elapsed).max(SHORTEST_STAY))
    }

    /// True if dials were in vain on the last three scheduled days while the client came by itself: use its own
    /// link, and dial only as [`Self::may_dial`] says. The first dial that is answered ends it.
    pub fn falls_back(&self) -> bool {
        self.in_vain.days >= IN_VAIN && self.in_vain.came
    }

    /// True unless dialling is of little use: then once a week.
    pub fn may_dial(&self, now: i64) -> bool {
        !self.falls_back() || !(0..WEEK).contains(&sane(now).saturating_sub(self.dialled))
    }

    fn alive(&mut self, at: i64) {
        let gap = at.saturating_sub(self.seen);
        let from = if (0..=BRIDGE).contains(&gap) { self.seen } else { at };
        self.days.mark(from, at);
        self.seen = at;
    }

    fn saw_network(&mut self, at: i64, fingerprint: u64) {
        // Half of its bits tell a handful apart.
        let folded = ((fingerprint ^ (fingerprint >> 32)) as u32).max(1);
        let today = day_of(at);
        let known = self.networks.iter().position(|(network, _)| *network == folded);
        // What another clock has seen in the future goes first, then what was not seen for longest.
        let age = |seen: u32| if seen > today { u32::MAX } else { today - seen };
        let oldest = || (0..self.networks.len()).max_by_key(|index| age(self.networks[*index].1));
        if let Some(index) = known.or_else(oldest) {
            self.networks[index] = (folded, today);
        }
    }

    /// Networks of the last three weeks; no more than are kept.
    fn networks(&self, now: i64) -> u8 {
        let today = day_of(now);
        let recent = |(network, seen): &&(u32, u32)| *network != 0 && is_recent(*seen, today);
        u8::try_from(self.networks.iter().filter(recent).count()).unwrap_or(u8::MAX)
    }

    /// Times it was late in the last three weeks; 2 stands for more, too.
    fn late(&self, now: i64) -> u8 {
        self.late.iter().map(|day| u8::from(is_recent(*day, day_of(now)))).sum()
    }
}

fn is_recent(day: u32, today: u32) -> bool {
    day > 0 && day <= today && today - day <= SPAN
}

/// Puts a duration at the head of a list, and lets the last one go.
fn push(list: &mut [u32], seconds: i64) {
    list.rotate_right(1);
    if let Some(head) = list.first_mut() {
        *head = u32::try_from(seconds).unwrap_or(u32::MAX).max(1);
    }
}

/// The middle of those that are there; of two, what is between them.
fn median<const N: usize>(mut list: [u32; N]) -> Option<u64> {
    list.sort_unstable();
    let present = &list[list.iter().take_while(|seconds| **seconds == 0).count()..];
    let at = |index: usize| present.get(index).map(|seconds| u64::from(*seconds));
    let upper = at(present.len() / 2)?;
    let lower = at(present.len().saturating_sub(1) / 2)?;
    Some(u64::midpoint(lower, upper))
}
