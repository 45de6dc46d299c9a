//! When which pack is read again, so that every byte is within a cycle: a pure function of what was read when.
//!
//! Nothing is remembered but the time of each pack's last check, which the catalog has: a restart loses nothing.

use backhaul_object::ids::PackId;

/// The cycle unless the config says otherwise: 30 days.
pub const CYCLE: u64 = 30 * 86_400;

/// A sealed pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Which.
    pub pack: PackId,
    /// Its length.
    pub bytes: u64,
    /// When it was last read whole, in seconds since 1970.
    pub checked_at: Option<u64>,
}

/// What is to be read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which pack.
    pub pack: PackId,
    /// Not before, in seconds since 1970.
    pub at: u64,
}

/// How far the cycle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Sealed packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs read within the last cycle.
    pub packs_fresh: u64,
    /// Their bytes.
    pub bytes_fresh: u64,
    /// When the one that waits longest was read; none when one never was, or there is none.
    pub oldest: Option<u64>,
}

/// A check in the future is one by a clock that was wrong: as good as now.
fn age(checked_at: Option<u64>, now: u64) -> Option<u64> {
    checked_at.map(|at| now.saturating_sub(at))
}

/// The pack that waits longest, and when it is read: the reads of a cycle are spread over nine tenths of it, each pack
/// taking its share by its size. What is late goes at twice the pace.
pub fn next(packs: &[Known], cycle: u64, now: u64) -> Option<Turn> {
    // Those never read have no age, and come first.
    let rank = |known: &&Known| {
        (age(known.checked_at, now).is_some(), u64::MAX - age(known.checked_at, now).unwrap_or(0), known.pack)
    };
    let due = packs.iter().min_by_key(rank)?;
    let total: u128 = packs.iter().map(|known| u128::from(known.bytes)).sum();
    let share = u128::from(cycle) * 9 * u128::from(due.bytes) / (10 * total.max(1));
    let is_late = age(due.checked_at, now).is_some_and(|age| age > cycle);
    let pause = if is_late { share / 2 } else { share } as u64;
    let last = packs.iter().filter_map(|known| known.checked_at).map(|at| at.min(now)).max();
    Some(Turn { pack: due.pack, at: last.map_or(now, |last| last + pause) })
}

/// How far the cycle is.
pub fn standing(packs: &[Known], cycle: u64, now: u64) -> Standing {
    let mut standing = Standing::default();
    for known in packs {
        standing.packs += 1;
        standing.bytes += known.bytes;
        if age(known.checked_at, now).is_some_and(|age| age <= cycle) {
            standing.packs_fresh += 1;
            standing.bytes_fresh += known.bytes;
        }
    }
    let oldest: Option<Vec<u64>> = packs.iter().map(|known| known.checked_at).collect();
    standing.oldest = oldest.and_then(|all| all.into_iter().min());
    standing
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn pack(n: usize) -> PackId {
        PackId([n as u8; 32])
    }

    proptest! {
        /// Whatever the sizes and whatever was read before, a server that runs for a cycle has read everything once, at
        /// no more than about the pace that takes, and none twice before all others once.
        #[test]
        fn a_cycle_reads_everything_once_at_an_even_pace(
            sizes in proptest::collection::vec((1u64..100, proptest::option::of(0u64..3_000_000)), 1..20)
        ) {
            let (cycle, start) = (1_000_000, 3_000_000);
            let mut packs: Vec<Known> = sizes
                .iter()
                .enumerate()
                .map(|(n, (bytes, age))| Known { pack: pack(n), bytes: *bytes, checked_at: age.map(|age| start - age) })
                .collect();
            let total: u64 = packs.iter().map(|known| known.bytes).sum();
            let (mut now, mut reads) = (start, Vec::new());
            loop {
                let turn = next(&packs, cycle, now).unwrap();
                prop_assert_eq!(next(&packs, cycle, now), Some(turn), "pure");
                if turn.at > start + cycle {
                    break;
                }
                now = turn.at.max(now);
                let known = packs.iter_mut().find(|known| known.pack == turn.pack).unwrap();
                known.checked_at = Some(now);
                reads.push((now, turn.pack, known.bytes));
                prop_assert!(reads.len() < 10_000);
            }
            for known in &packs {
                prop_assert!(known.checked_at.unwrap() >= start, "{known:?} was not read");
            }
            let first: Vec<PackId> = reads.iter().take(packs.len()).map(|(_, pack, _)| *pack).collect();
            let mut once = first.clone();
            once.sort();
            once.dedup();
            prop_assert_eq!(once.len(), packs.len(), "one was read again before another at all: {:?}", first);
            // Twice the pace at most, when all of it is late.
            let bytes: u64 = reads.iter().skip(1).map(|(_, _, bytes)| bytes).sum();
            let time = u128::from(now - start) + 2 * reads.len() as u128;
            prop_assert!(u128::from(bytes) * u128::from(cycle) * 9 <= u128::from(total) * 20 * time, "too fast");
        }

        #[test]
        fn a_clock_that_jumps_neither_stops_nor_floods_it(jump in -100_000_000i64..100_000_000) {
            let (cycle, then) = (1_000_000u64, 200_000_000u64);
            let packs: Vec<Known> =
                (0..10).map(|n| Known { pack: pack(n), bytes: 10, checked_at: Some(then - n as u64 * 100_000) }).collect();
            let now = (then as i64 + jump) as u64;
            let turn = next(&packs, cycle, now).unwrap();
            prop_assert!(turn.at <= now + cycle);
            // After the first read by the new clock the next takes its time again.
            let mut packs = packs;
            let at = turn.at.max(now);
            packs.iter_mut().find(|known| known.pack == turn.pack).unwrap().checked_at = Some(at);
            prop_assert!(next(&packs, cycle, at).unwrap().at >= at + cycle / 10 * 9 / 20);
        }
    }

    #[test]
    fn what_was_never_read_comes_first_and_shows() {
        let packs = [
            Known { pack: pack(1), bytes: 6, checked_at: Some(5) },
            Known { pack: pack(2), bytes: 4, checked_at: None },
        ];
        assert_eq!(next(&packs, 100, 50), Some(Turn { pack: pack(2), at: 5 + 36 }));
        let standing = standing(&packs, 100, 50);
        assert_eq!(standing, Standing { packs: 2, bytes: 10, packs_fresh: 1, bytes_fresh: 6, oldest: None });
        assert_eq!(next(&[], 100, 50), None);
    }
}
