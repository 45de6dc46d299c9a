//! Marks beside manifests: what people and retention have said about a snapshot, and when it may really go.
//!
//! A snapshot without a mark is kept. A forgotten one is hidden, and can be had back until it is reclaimed:
//! [`may_reclaim`] says from when that is allowed. It goes by the clock *and* by nights that the vault has counted
//! ([`Nights`]): a clock that jumps by a year lets one night pass, not 365.

use backhaul_object::codec::{FormatError, Write};
use backhaul_object::ids::{ClientId, ObjectId};
use backhaul_object::small_file::{SmallFile, summed};

const MARK: SmallFile = SmallFile { what: "mark", magic: b"BHMK", version: 1 };
const NIGHTS: SmallFile = SmallFile { what: "count of nights", magic: b"BHNT", version: 1 };
/// Longest reason, in bytes.
pub const REASON_MAX: usize = 400;
/// A night is counted when the clock has moved by so many seconds since the last.
pub const NIGHT: u64 = 20 * 3_600;
/// By so much a clock is not put right again and again; in seconds.
const SWING: u64 = 3_600;
const DAY: u64 = 24 * 3_600;

/// What was said about a snapshot last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As if it had no mark: it was unpinned, or had back.
    Kept,
    /// Nothing forgets it.
    Pinned,
    /// It is hidden, and goes when its grace is over.
    Forgotten,
}

impl State {
    const ALL: [Self; 3] = [Self::Kept, Self::Pinned, Self::Forgotten];

    /// The word in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Pinned => "pinned",
            Self::Forgotten => "forgotten",
        }
    }

    /// The number on disk and in the catalog.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }
}

/// A mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Whose snapshot.
    pub client: ClientId,
    /// Its number among the client's.
    pub sequence: u64,
    /// The snapshot itself: a mark that lies beside another manifest says nothing about that.
    pub id: ObjectId,
    /// What was said.
    pub state: State,
    /// When, in seconds since 1970 by the server's clock.
    pub marked_at: u64,
    /// Nights that the vault had counted then.
    pub night: u64,
    /// Seconds for which a forgotten snapshot can be had back.
    pub grace: u64,
    /// Why, for people.
    pub reason: String,
}

impl Mark {
    /// The blob name: `snaps/<client>/<sequence>.mark`.
    pub fn name(&self) -> String {
        mark_name(self.client, self.sequence)
    }

    /// Canonical bytes, ending in a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MARK.begin();
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.client.as_bytes());
        out.put_varint(self.sequence);
        out.push(self.state.number());
        for value in [self.marked_at, self.night, self.grace] {
            out.put_varint(value);
        }
        out.put_bytes(self.reason.as_bytes());
        summed(out)
    }

    /// Reads a mark file.
    ///
    /// # Errors
    /// Truncated, changed, or of an unknown version or state.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = MARK.open(bytes)?;
        let id = ObjectId(r.array("snapshot id")?);
        let client = ClientId(r.array("client")?);
        let sequence = r.varint("sequence")?;
        let state = r.u8("state")?;
        let state = State::from_number(state)
            .ok_or(FormatError::Unknown { what: "state of a mark", value: u64::from(state) })?;
        let marked_at = r.varint("time of the mark")?;
        let night = r.varint("night of the mark")?;
        let grace = r.varint("grace")?;
        let reason = r.bytes("reason", REASON_MAX)?;
        let reason = std::str::from_utf8(reason).map_err(|_| FormatError::Invalid("reason"))?.to_owned();
        r.finish()?;
        Ok(Self { client, sequence, id, state, marked_at, night, grace, reason })
    }
}

/// The blob name of a snapshot's mark.
pub(crate) fn mark_name(client: ClientId, sequence: u64) -> String {
    format!("snaps/{client}/{sequence:010}.mark")
}

/// Nights that have passed over a vault, whatever its clock says: at most one in [`NIGHT`] seconds of the clock, and
/// one for a jump of the clock however far, and however often it swings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nights {
    /// So many.
    pub count: u64,
    /// When the last was counted, in seconds since 1970; 0 before the first.
    pub last_at: u64,
}

impl Nights {
    /// Looks at the clock: what is there afterwards, and whether a night was counted.
    pub fn look(self, now: u64) -> (Self, bool) {
        match now {
            // The clock was set back: it is believed, and a night begins now. What was counted last may have been a jump: were it
            // to stay counted, a clock that swings would count with each swing.
            now if self.last_at.saturating_sub(now) >= SWING => {
                (Self { count: self.count.saturating_sub(1), last_at: now }, false)
            }
            now if now < self.last_at => (Self { last_at: now, ..self }, false),
            now if now - self.last_at < NIGHT => (self, false),
            now => (Self { count: self.count + 1, last_at: now }, true),
        }
    }

    /// Canonical bytes, ending in a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = NIGHTS.begin();
        out.put_varint(self.count);
        out.put_varint(self.last_at);
        summed(out)
    }

    /// Reads the file `nights`.
    ///
    /// # Errors
    /// Truncated, changed, or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = NIGHTS.open(bytes)?;
        let (count, last_at) = (r.varint("nights")?, r.varint("time of the last")?);
        r.finish()?;
        Ok(Self { count, last_at })
    }
}

/// True when a forgotten snapshot is forgotten for good: its grace has passed by the clock, unless that was set back
/// behind the mark, and as many nights were counted since as the grace has days, at least one.
pub fn may_reclaim(mark: &Mark, now: u64, nights: Nights) -> bool {
    let by_clock = now < mark.marked_at || now - mark.marked_at >= mark.grace;
    let by_nights = nights.count.saturating_sub(mark.night) >= mark.grace.div_ceil(DAY).max(1);
    mark.state == State::Forgotten && by_clock && by_nights
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEAR: u64 = 365 * DAY;

    fn forgotten(marked_at: u64, night: u64, grace: u64) -> Mark {
        Mark {
            client: ClientId([1; 16]),
            sequence: 3,
            id: ObjectId([2; 32]),
            state: State::Forgotten,
            marked_at,
            night,
            grace,
            reason: String::new(),
        }
    }

    #[test]
    fn a_jump_of_the_clock_is_one_night() {
        let start = 1_700_000_000;
        let (nights, counted) = Nights::default().look(start);
        assert!(counted && nights.count == 1);
        assert_eq!(nights.look(start + NIGHT - 1), (nights, false));
        let (ahead, counted) = nights.look(start + YEAR);
        assert!(counted && ahead.count == 2);
        let (back, counted) = ahead.look(start + 60);
        assert!(!counted && back.count == 1, "the jump was none");
        assert_eq!(back.look(start + NIGHT).0.count, 1, "a night begins when the clock is set back");
        assert_eq!(back.look(start + 60 + NIGHT).0.count, 2);
        assert_eq!(ahead.look(start + YEAR - 1).0.count, 2, "a clock is put right by a second each day");
    }

    proptest! {
        /// A clock that is wrong now and then by the same time, an hour or years.
        #[test]
        fn a_clock_that_swings_counts_no_more_than_the_nights_and_one(
            by in SWING..3 * YEAR,
            looks in prop::collection::vec((0..4 * 3_600_u64, any::<bool>()), 1..300),
        ) {
            let start = 1_700_000_000;
            let (mut nights, mut real) = (Nights { count: 0, last_at: start }, start);
            for (passes, is_wrong) in looks {
                real += passes;
                nights = nights.look(if is_wrong { real + by } else { real }).0;
                prop_assert!(nights.count <= (real - start) / NIGHT + 1, "{nights:?}");
            }
        }
    }

    #[test]
    fn grace_takes_time_and_nights() {
        let (now, week) = (1_700_000_000, 7 * DAY);
        let mark = forgotten(now, 10, week);
        let at = |count| Nights { count, last_at: now };
        assert!(may_reclaim(&mark, now + week, at(17)));
        assert!(!may_reclaim(&mark, now + week - 1, at(17)), "the clock");
        assert!(!may_reclaim(&mark, now + week, at(16)), "the nights");
        assert!(!may_reclaim(&mark, now + YEAR, at(11)), "a jump of a year forth");
        assert!(!may_reclaim(&mark, now - YEAR, at(11)), "a jump of a year back");
        assert!(may_reclaim(&mark, now - YEAR, at(17)), "the clock was wrong when it was marked");
        assert!(!may_reclaim(&forgotten(now, 10, 0), now, at(10)), "without grace one night all the same");
        assert!(!may_reclaim(&mark, now + week, at(3)), "a count that was lost gives nothing free");
        for state in [State::Kept, State::Pinned] {
            assert!(!may_reclaim(&Mark { state, ..mark.clone() }, now + YEAR, at(999)));
        }
    }
}
