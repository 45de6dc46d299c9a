//! What a policy says about keeping.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use thiserror::Error;

use super::Unit;

const DAY: i64 = 86_400;
/// Seconds for which what was forgotten can be had back, unless the policy says otherwise.
const GRACE: i64 = 7 * DAY;

/// Why rules are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{}", self.why())]
pub enum RulesError {
    /// Everything would go but the floor.
    Nothing,
    /// Only what has a tag would stay: one that is misspelt would drop everything.
    OnlyTags,
    /// Two things that cannot both be meant.
    Contradiction,
    /// What is forgotten could hardly be had back.
    Grace,
}

impl RulesError {
    /// In words.
    pub fn why(self) -> &'static str {
        match self {
            Self::Nothing => "it keeps nothing; say how many, as last = 3 or daily = 14, or forever = true",
            Self::OnlyTags => {
                "tags alone keep nothing of what has none; say how many of the others, too, as daily = 14"
            }
            Self::Contradiction => "forever = true keeps everything, so that nothing else can be said",
            Self::Grace => "from 1d to 365d: for so long what was forgotten can be had back",
        }
    }
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rules {
    /// Everything.
    Forever,
    /// What any of these keeps.
    Some {
        /// The newest ones.
        last: u32,
        /// The newest whole one of each of so many periods.
        periods: [(Unit, u32); 5],
        /// All that are younger than this, in seconds, from the newest on.
        within: Option<i64>,
        /// All that have one of these labels.
        tags: BTreeSet<String>,
    },
}

/// What a policy says about keeping.
#[derive(Debug, Clone, PartialEq)]
pub struct Keep {
    /// What is kept.
    pub rules: Rules,
    /// Seconds for which what is forgotten can be had back.
    pub grace: i64,
    /// Whose days, weeks, months.
    pub zone: TimeZone,
    /// True when the file says `tz = "client"`: `zone` is then a stand-in until the client has said where it is.
    pub of_client: bool,
    /// The policy's period in seconds: longer gaps are times without a backup.
    pub usual_gap: i64,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            rules: Rules::of(3, [0, 14, 8, 12, 3]),
            grace: GRACE,
            zone: TimeZone::UTC,
            of_client: false,
            usual_gap: DAY,
        }
    }
}

impl Rules {
    /// Counts only: of the newest, and of hours, days, weeks, months, years.
    pub fn of(last: u32, counts: [u32; 5]) -> Self {
        let periods = std::array::from_fn(|i| (Unit::ALL[i], counts[i]));
        Self::Some { last, periods, within: None, tags: BTreeSet::new() }
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// It says why.
    pub fn check(self) -> Result<Self, RulesError> {
        let Self::Some { last, periods, within, tags } = &self else { return Ok(self) };
        let counts = *last > 0 || within.is_some() || periods.iter().any(|(_, count)| *count > 0);
        match (counts, tags.is_empty()) {
            (true, _) => Ok(self),
            (false, true) => Err(RulesError::Nothing),
            (false, false) => Err(RulesError::OnlyTags),
        }
    }
}

/// Checks a grace.
///
/// # Errors
/// [`RulesError::Grace`].
pub fn check_grace(seconds: i64) -> Result<i64, RulesError> {
    if (DAY..=365 * DAY).contains(&seconds) { Ok(seconds) } else { Err(RulesError::Grace) }
}
