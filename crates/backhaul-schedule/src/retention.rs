//! Retention: which snapshots of a client are kept, and why. The rest may be forgotten.
//!
//! A function of the rules and the snapshots, and of nothing else. It knows no *now*: a clock that jumps, or that is
//! wrong on the day of the decision, cannot make it drop anything. Order is that of the sequence numbers that the
//! server gives, times are those of the server's clock at the commit; what a client says about time is not looked at.
//!
//! - Rules count what is there: a period without a backup costs nothing.
//! - Where the server's clock jumped between two snapshots, or the client was away for long, every rule gets
//!   more places ([`CREDIT`]): the jump may cut periods in two, and must not cost any. A long gap counts as much as the
//!   gaps that it was before what lay in it was dropped, so that deciding again drops nothing more.
//! - [`FLOOR`]: the newest whole snapshots are kept whatever the rules say.
//!
//! Rules are independent of each other: a snapshot is kept when any of them keeps it, so that a rule that is added or
//! raised never drops anything.

use std::collections::BTreeSet;
use std::fmt;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

mod rules;

pub use rules::{Keep, Rules, RulesError, check_grace};

/// The newest whole snapshots that no rule, right or wrong, can drop; where there are fewer, newest others.
pub const FLOOR: usize = 3;
/// Two snapshots further apart than this, or with their times in the wrong order, are a break.
pub const BREAK: i64 = 90 * 86_400;
/// Places that each rule gets more for each [`BREAK`] that a gap is long, up to [`CREDITS`] of them; where times are in
/// the wrong order nobody knows how long it was.
const CREDIT: u32 = 2;
const CREDITS: i64 = 4;

/// Whether all that a run should save was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// All of it.
    Complete,
    /// Some files could not be read.
    Partial,
}

/// Whether somebody has pinned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    /// Nothing forgets it.
    Yes,
    /// The rules decide.
    No,
}

/// A snapshot of one client, as far as retention looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number among the client's.
    pub sequence: u64,
    /// When it was committed, in seconds since 1970 by the server's clock.
    pub at: i64,
    /// Whether it is whole.
    pub completeness: Completeness,
    /// Its labels.
    pub tags: Vec<String>,
    /// Whether somebody has pinned it.
    pub pinned: Pinned,
}

/// A length of time that the calendar has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// From minute 0.
    Hour,
    /// From midnight.
    Day,
    /// From Monday (ISO 8601).
    Week,
    /// From the first.
    Month,
    /// From the first of January.
    Year,
}

impl Unit {
    /// All, shortest first.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The word of its rule.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// The period that a moment is in: what tells it from others, and its name for people.
    fn period(self, at: i64, zone: &TimeZone) -> (i64, String) {
        let moment = Timestamp::from_second(at).unwrap_or(Timestamp::MAX).to_zoned(zone.clone());
        let (year, month) = (i64::from(moment.year()), i64::from(moment.month()));
        let days = || i64::from(moment.date().since(civil::Date::ZERO).map_or(0, |span| span.get_days()));
        match self {
            // Of the hour that comes twice when summer time ends, both count.
            Self::Hour => {
                let offset = i64::from(moment.offset().seconds());
                let name = moment.strftime("%Y-%m-%dT%H").to_string();
                (((at + offset).div_euclid(3_600) << 18) + offset, name)
            }
            Self::Day => (days(), moment.strftime("%Y-%m-%d").to_string()),
            Self::Week => {
                let week = moment.date().iso_week_date();
                let (year, number) = (i64::from(week.year()), i64::from(week.week()));
                (year * 100 + number, format!("{year}-W{number:02}"))
            }
            Self::Month => (year * 12 + month, moment.strftime("%Y-%m").to_string()),
            Self::Year => (year, year.to_string()),
        }
    }
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Somebody has pinned it.
    Pinned,
    /// It has a tag that is kept.
    Tag(String),
    /// It is one of the newest.
    Last(u32),
    /// It is the newest whole one of its period, or the newest where none is whole.
    Newest(Unit, String),
    /// It is young enough.
    Within(i64),
    /// Nothing of this policy is ever dropped.
    Forever,
    /// It is one of the newest whole ones.
    Floor,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Last(number) => write!(f, "last {number}"),
            Self::Newest(unit, period) => write!(f, "{} {period}", unit.rule()),
            Self::Within(seconds) => write!(f, "within {}", crate::policy::units::seconds(*seconds)),
            Self::Forever => f.write_str("forever"),
            Self::Floor => write!(f, "floor of {FLOOR}"),
        }
    }
}

/// What is decided about a snapshot: kept for these reasons, or dropped when there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Which.
    pub sequence: u64,
    /// Why it is kept.
    pub reasons: Vec<Reason>,
}

impl Decision {
    /// True when something keeps it.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Decides about all snapshots of one client; those that are forgotten already are not among them. Newest first.
pub fn decide(keep: &Keep, snapshots: &[Snapshot]) -> Vec<Decision> {
    let mut newest_first: Vec<&Snapshot> = snapshots.iter().collect();
    newest_first.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.sequence));
    let credits = credits(&newest_first);
    let floor = floor(&newest_first);
    let mut decisions: Vec<Decision> = newest_first
        .iter()
        .enumerate()
        .map(|(place, snapshot)| Decision {
            sequence: snapshot.sequence,
            reasons: plain_reasons(keep, snapshot, place, floor.contains(&snapshot.sequence)),
        })
        .collect();
    if let Rules::Some { within, periods, .. } = &keep.rules {
        for (unit, count) in periods.iter().filter(|(_, count)| *count > 0) {
            by_period(*unit, *count, &keep.zone, &newest_first, &credits, &mut decisions);
        }
        if let Some(within) = within {
            by_age(*within, keep.usual_gap, &newest_first, &mut decisions);
        }
    }
    decisions
}

/// Reasons that need no look at others.
fn plain_reasons(keep: &Keep, snapshot: &Snapshot, place: usize, in_floor: bool) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if snapshot.pinned == Pinned::Yes {
        reasons.push(Reason::Pinned);
    }
    match &keep.rules {
        Rules::Forever => reasons.push(Reason::Forever),
        Rules::Some { last, tags, .. } => {
            reasons.extend(snapshot.tags.iter().filter(|tag| tags.contains(*tag)).cloned().map(Reason::Tag));
            if place < *last as usize {
                reasons.push(Reason::Last(*last));
            }
        }
    }
    if in_floor {
        reasons.push(Reason::Floor);
    }
    reasons
}

/// The sequence numbers that are kept whatever is said.
fn floor(newest_first: &[&Snapshot]) -> BTreeSet<u64> {
    let of = |wanted: Completeness| newest_first.iter().filter(move |s| s.completeness == wanted);
    let whole = of(Completeness::Complete).chain(of(Completeness::Partial));
    whole.take(FLOOR).map(|snapshot| snapshot.sequence).collect()
}

/// For each snapshot, the places that rules have got more by then.
fn credits(newest_first: &[&Snapshot]) -> Vec<u32> {
    let mut credit = 0;
    let mut newer: Option<i64> = None;
    let mut all = Vec::with_capacity(newest_first.len());
    for snapshot in newest_first {
        if let Some(newer) = newer.replace(snapshot.at).filter(|newer| is_break(*newer, snapshot.at)) {
            let breaks = match newer.saturating_sub(snapshot.at) {
                gap @ 0.. => (gap / BREAK).min(CREDITS),
                _ => CREDITS,
            };
            credit = CREDIT.saturating_mul(breaks as u32).saturating_add(credit);
        }
        all.push(credit);
    }
    all
}

/// True where the clock jumped between two snapshots, or the client was away for long.
fn is_break(newer: i64, older: i64) -> bool {
    !(0..=BREAK).contains(&newer.saturating_sub(older))
}

/// Keeps one snapshot of each of the newest periods in which there are any: the newest whole one, or else the newest.
fn by_period(
    unit: Unit,
    count: u32,
    zone: &TimeZone,
    newest_first: &[&Snapshot],
    credits: &[u32],
    decisions: &mut [Decision],
) {
    let named: Vec<(i64, String)> = newest_first.iter().map(|one| unit.period(one.at, zone)).collect();
    let (mut periods, mut first) = (0_u32, 0);
    for of_one in named.chunk_by(|one, other| one.0 == other.0) {
        let snapshots = &newest_first[first..first + of_one.len()];
        let whole = snapshots.iter().position(|one| one.completeness == Completeness::Complete);
        let kept = first + whole.unwrap_or(0);
        if periods < count.saturating_add(credits[first]) {
            decisions[kept].reasons.push(Reason::Newest(unit, of_one[0].1.clone()));
        }
        periods = periods.saturating_add(1);
        first += of_one.len();
    }
}

/// Keeps what is younger than an age, from the newest on. A gap counts at most as two periods of the policy, and a break
/// as nothing: who was away has not aged.
fn by_age(within: i64, usual_gap: i64, newest_first: &[&Snapshot], decisions: &mut [Decision]) {
    let (mut age, mut newer) = (0_i64, None);
    for (snapshot, decision) in newest_first.iter().zip(decisions) {
        if let Some(newer) = newer.replace(snapshot.at).filter(|newer| !is_break(*newer, snapshot.at)) {
            age = age.saturating_add(newer.saturating_sub(snapshot.at).min(2 * usual_gap));
        }
        if age <= within {
            decision.reasons.push(Reason::Within(within));
        }
    }
}
