//! Who had better begin a client's runs, and why: a pure function of its history, so that it can be asked again with
//! another limit ("what if").
//!
//! | First that holds | Mode |
//! |---|---|
//! | less than 7 days known | client if it has a battery or was behind NAT, else server; provisional |
//! | ≥ 90 % of dials answered, ≥ 80 % of its window online, at most one network, never behind NAT | server |
//! | < 50 % of dials answered, or > 50 % of contacts behind NAT, or 3 networks | client; hybrid if its limit is a day or less, or it was late twice |
//! | otherwise | hybrid |

use std::fmt;

use serde::{Deserialize, Serialize};

use super::days::{DAY, HOUR, SPAN, Share, sane};
use super::{HasBattery, Mode, Reach, Remedy};

/// Days of history below which a recommendation is provisional.
const ENOUGH: u32 = 7;
/// Networks that one sees of a client at most: more are not kept.
const MOST_NETWORKS: u8 = 8;

/// Whether runs may start in an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InWindow {
    /// In some of it at least.
    Yes,
    /// At no time of it.
    No,
}

/// The figures a recommendation is made of; of the last 21 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasons {
    /// Days of which something is known.
    pub days: u32,
    /// Hours in the window in which the client was there.
    pub online: Share,
    /// Dials that were answered.
    pub dials: Share,
    /// Networks it was in; 8 stands for more, too.
    pub networks: u8,
    /// Contacts from behind NAT.
    pub behind_nat: Share,
    /// Has it a battery?
    pub battery: HasBattery,
    /// Age of the newest snapshot at which it is late, in seconds.
    pub rpo: i64,
    /// Times it was late; 2 stands for more, too.
    pub late: u8,
    /// What helped after the last failure.
    pub recovered: Option<Remedy>,
}

impl Reasons {
    /// True if so little is known that a recommendation is a guess.
    pub fn is_provisional(&self) -> bool {
        self.days < ENOUGH
    }

    fn mode(&self) -> Mode {
        if self.is_provisional() {
            let moves = self.battery == HasBattery::Yes || self.behind_nat.part > 0;
            return if moves { Mode::Client } else { Mode::Server };
        }
        let always_there = self.dials.at_least(90) && self.online.at_least(80);
        if always_there && self.networks <= 1 && self.behind_nat.part == 0 {
            return Mode::Server;
        }
        let unanswered = self.dials.of > 0 && !self.dials.at_least(50);
        if unanswered || self.behind_nat.more_than(50) || self.networks >= 3 {
            let pressing = self.rpo <= DAY || self.late >= 2;
            return if pressing { Mode::Hybrid } else { Mode::Client };
        }
        Mode::Hybrid
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_provisional() {
            write!(f, "{} of {ENOUGH} days known; ", self.days)?;
        }
        match self.online.percent() {
            Some(percent) => write!(f, "online {percent} % of window; ")?,
            None => write!(f, "no hour of window known; ")?,
        }
        match self.dials {
            Share { of: 0, .. } => write!(f, "never dialled; ")?,
            Share { part, of } => write!(f, "dial ok {part}/{of}; ")?,
        }
        match self.networks {
            0 => write!(f, "network unknown; ")?,
            1 => write!(f, "1 network; ")?,
            MOST_NETWORKS.. => write!(f, "{MOST_NETWORKS} or more networks; ")?,
            few => write!(f, "{few} networks; ")?,
        }
        match self.behind_nat.percent() {
            Some(percent) => write!(f, "behind NAT {percent} %; ")?,
            None => write!(f, "NAT unknown; ")?,
        }
        if self.battery == HasBattery::Yes {
            write!(f, "has a battery; ")?;
        }
        write!(f, "RPO {}", Span(self.rpo))?;
        match self.late {
            0 => {}
            1 => write!(f, "; late once")?,
            _ => write!(f, "; late twice or more")?,
        }
        match self.recovered {
            Some(remedy) => write!(f, "; last failure recovered by {remedy}"),
            None => Ok(()),
        }
    }
}

/// Seconds in the largest unit that they are a whole number of.
struct Span(i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds % HOUR == 0 => write!(f, "{} h", seconds / HOUR),
            seconds if seconds % 60 == 0 => write!(f, "{} min", seconds / 60),
            seconds => write!(f, "{seconds} s"),
        }
    }
}

/// A mode, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Who had better begin the client's runs.
    pub mode: Mode,
    /// Too little is known: it is a guess.
    pub provisional: bool,
    /// The figures.
    pub reasons: Reasons,
}

impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guess = if self.provisional { " (provisional)" } else { "" };
        write!(f, "{}{guess}: {}", self.mode, self.reasons)
    }
}

impl Reach {
    /// What the history recommends. `window` judges an hour by its beginning (seconds since 1970); `rpo` is the age
    /// in seconds at which the client is late. Asks for each hour of three weeks: once a day for each client is
    /// plenty.
    pub fn recommend(&self, now: i64, window: &dyn Fn(i64) -> InWindow, rpo: i64) -> Recommendation {
        let now = sane(now);
        let span = i64::from(SPAN);
        let since = self.days.known_since(now).unwrap_or(now).clamp(now - span * DAY, now);
        let remedy = self.recovered.filter(|(day, _)| super::is_recent(*day, super::day_of(now)));
        let reasons = Reasons {
            days: u32::try_from((now - since) / DAY).unwrap_or(SPAN),
            online: self.online_hours(since, now, window),
            dials: self.days.dials(now),
            networks: self.networks(now),
            behind_nat: self.days.behind_nat(now),
            battery: self.battery,
            rpo,
            late: self.late(now),
            recovered: remedy.map(|(_, remedy)| remedy),
        };
        Recommendation { mode: reasons.mode(), provisional: reasons.is_provisional(), reasons }
    }

    /// Whole hours in the window, and those of them in which the client was there.
    fn online_hours(&self, since: i64, now: i64, window: &dyn Fn(i64) -> InWindow) -> Share {
        let mut share = Share::default();
        for hour in since / HOUR..now / HOUR {
            if window(hour * HOUR) == InWindow::Yes {
                share.of += 1;
                share.part += u32::from(self.days.was_there(hour * HOUR));
            }
        }
        share
    }
}
