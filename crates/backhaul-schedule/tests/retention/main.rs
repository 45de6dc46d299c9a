//! What retention promises, held against random histories.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use backhaul_schedule::retention::{
    Completeness, Decision, FLOOR, Keep, Pinned, Reason, Rules, Snapshot, Unit, decide,
};
use jiff::tz::TimeZone;
use proptest::prelude::*;

mod texts;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// A year of whole weeks: more would move the calendar under the snapshots.
const YEAR: i64 = 52 * 7 * DAY;
/// A Monday at midnight, UTC.
const MONDAY: i64 = 1_700_438_400;

fn plain(sequence: u64, at: i64) -> Snapshot {
    Snapshot { sequence, at, completeness: Completeness::Complete, tags: Vec::new(), pinned: Pinned::No }
}

fn keep(last: u32, counts: [u32; 5]) -> Keep {
    Keep { rules: Rules::of(last, counts), ..Keep::default() }
}

fn kept(keep: &Keep, snapshots: &[Snapshot]) -> BTreeSet<u64> {
    decide(keep, snapshots).into_iter().filter(|d| d.is_kept()).map(|d| d.sequence).collect()
}

/// A history with a sane clock: gaps of minutes, hours, days, sometimes months.
fn history() -> impl Strategy<Value = Vec<Snapshot>> {
    let gap = prop_oneof![
        4 => 60..6 * HOUR,
        6 => 20 * HOUR..28 * HOUR,
        2 => DAY..12 * DAY,
        1 => 12 * DAY..200 * DAY,
    ];
    let one = (gap, prop::bool::weighted(0.2), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    (0..DAY, prop::collection::vec(one, 0..60)).prop_map(|(start, steps)| {
        let mut at = MONDAY + start;
        let step = |(i, (gap, partial, tagged, pinned)): (usize, (i64, bool, bool, bool))| {
            at += gap;
            Snapshot {
                completeness: if partial { Completeness::Partial } else { Completeness::Complete },
                tags: if tagged { vec!["keep-me".to_owned()] } else { vec![format!("t{i}")] },
                pinned: if pinned { Pinned::Yes } else { Pinned::No },
                ..plain(i as u64 + 1, at)
            }
        };
        steps.into_iter().enumerate().map(step).collect()
    })
}

fn rules() -> impl Strategy<Value = Keep> {
    let counts = [0..30_u32, 0..20, 0..10, 0..14, 0..4];
    let within = prop::option::of(HOUR..200 * DAY);
    (0..6_u32, counts, within, any::<bool>(), any::<bool>()).prop_map(
        |(last, counts, within, tag, berlin)| {
            let Rules::Some { last, periods, .. } = Rules::of(last, counts) else { return Keep::default() };
            let tags = if tag { BTreeSet::from(["keep-me".to_owned()]) } else { BTreeSet::new() };
            let zone = if berlin { TimeZone::get("Europe/Berlin").unwrap() } else { TimeZone::UTC };
            Keep { rules: Rules::Some { last, periods, within, tags }, zone, ..Keep::default() }
        },
    )
}

/// The same rules with one of them raised.
fn raised(keep: &Keep, which: usize, by: u32) -> Keep {
    let Rules::Some { mut last, mut periods, mut within, tags } = keep.rules.clone() else {
        return keep.clone();
    };
    match which {
        0 => last += by,
        1 => within = Some(within.unwrap_or(0) + i64::from(by) * DAY),
        unit => periods[(unit - 2) % 5].1 += by,
    }
    Keep { rules: Rules::Some { last, periods, within, tags }, ..keep.clone() }
}

/// The same rules in UTC, by nothing longer than weeks.
fn without_months(keep: &Keep) -> Keep {
    let Rules::Some { last, mut periods, within, tags } = keep.rules.clone() else { return keep.clone() };
    (periods[3].1, periods[4].1) = (0, 0);
    Keep { rules: Rules::Some { last, periods, within, tags }, zone: TimeZone::UTC, ..keep.clone() }
}

/// The clock is wrong by `shift` for the snapshots `from..to`.
fn jumped(snapshots: &[Snapshot], from: usize, to: usize, shift: i64) -> Vec<Snapshot> {
    let mut all = snapshots.to_vec();
    all.iter_mut().take(to).skip(from).for_each(|snapshot| snapshot.at += shift);
    all
}

#[test]
fn two_long_absences_that_become_one_cost_nothing() {
    let days = [200, 100, 2, 1, 0];
    let snapshots: Vec<Snapshot> = (1..).zip(days).map(|(i, ago)| plain(i, MONDAY - ago * DAY)).collect();
    let keep = keep(0, [0, 1, 0, 0, 0]);
    let once = kept(&keep, &snapshots);
    assert_eq!(once, BTreeSet::from([1, 3, 4, 5]), "the one between the absences is dropped");
    let left: Vec<Snapshot> = snapshots.into_iter().filter(|s| once.contains(&s.sequence)).collect();
    assert_eq!(kept(&keep, &left), once);
}

/// The year and month of a day since 1970, by counting days.
fn month_of(mut day: i64) -> (i64, usize) {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while day >= 365 + i64::from(is_leap(year)) {
        day -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    (year, month)
}

/// Which hour, day, week, month or year a moment is in, in UTC.
fn period(unit: usize, at: i64) -> i64 {
    let day = at / DAY;
    let (year, month) = month_of(day);
    // The first day of 1970 was a Thursday.
    [at / HOUR, day, (day + 3) / 7, year * 12 + month as i64, year][unit]
}

/// What is kept in UTC, where no gap is a break and all is whole: the newest of each of the newest periods that have any.
fn model(last: usize, counts: [u32; 5], within: i64, snapshots: &[Snapshot]) -> BTreeSet<u64> {
    let Some(newest) = snapshots.last() else { return BTreeSet::new() };
    let mut kept: BTreeSet<u64> = snapshots.iter().rev().take(last.max(FLOOR)).map(|s| s.sequence).collect();
    // Nobody ages by more than two days from one snapshot to the next.
    let (mut age, mut newer) = (0, newest.at);
    for snapshot in snapshots.iter().rev().take_while(|_| within > 0) {
        age += (newer - snapshot.at).min(2 * DAY);
        newer = snapshot.at;
        if age <= within {
            kept.insert(snapshot.sequence);
        }
    }
    for (unit, count) in counts.into_iter().enumerate() {
        let mut seen = BTreeSet::new();
        for snapshot in snapshots.iter().rev() {
            let is_new = seen.insert(period(unit, snapshot.at));
            if is_new && seen.len() <= count as usize {
                kept.insert(snapshot.sequence);
            }
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn each_rule_keeps_what_its_words_say(
        start in 0..3 * YEAR,
        gaps in prop::collection::vec(prop_oneof![60..6 * HOUR, 20 * HOUR..28 * HOUR, DAY..12 * DAY, 12 * DAY..89 * DAY], 0..80),
        last in 0..6_u32,
        counts in [0..30_u32, 0..20, 0..10, 0..14, 0..4],
        within in prop_oneof![Just(0), HOUR..200 * DAY],
    ) {
        prop_assume!(last > 0 || counts.iter().any(|count| *count > 0));
        let mut at = MONDAY + start;
        let snapshots: Vec<Snapshot> = (1..).zip(gaps).map(|(i, gap)| { at += gap; plain(i, at) }).collect();
        let Rules::Some { last: n, periods, tags, .. } = Rules::of(last, counts) else { unreachable!() };
        let rules = Rules::Some { last: n, periods, within: Some(within).filter(|within| *within > 0), tags };
        let keep = Keep { rules, zone: TimeZone::UTC, ..Keep::default() };
        prop_assert_eq!(kept(&keep, &snapshots), model(last as usize, counts, within, &snapshots));
    }

    #[test]
    fn a_rule_that_is_raised_drops_nothing(
        keep in rules(), snapshots in history(), which in 0..7_usize, by in 1..9_u32,
    ) {
        let (less, more) = (kept(&keep, &snapshots), kept(&raised(&keep, which, by), &snapshots));
        prop_assert!(less.is_subset(&more), "{less:?} {more:?}");
    }

    #[test]
    fn deciding_again_drops_nothing_more(keep in rules(), snapshots in history()) {
        let once = kept(&keep, &snapshots);
        let left: Vec<Snapshot> = snapshots.iter().filter(|s| once.contains(&s.sequence)).cloned().collect();
        prop_assert_eq!(kept(&keep, &left), once);
    }

    #[test]
    fn the_floor_holds_under_any_rules(keep in rules(), snapshots in history()) {
        let kept = kept(&keep, &snapshots);
        let whole = snapshots.iter().rev().filter(|s| s.completeness == Completeness::Complete);
        for snapshot in whole.take(FLOOR) {
            prop_assert!(kept.contains(&snapshot.sequence));
        }
        prop_assert!(kept.len() >= snapshots.len().min(FLOOR));
        for snapshot in snapshots.iter().filter(|s| s.pinned == Pinned::Yes) {
            prop_assert!(kept.contains(&snapshot.sequence));
        }
    }

    #[test]
    fn the_order_of_the_list_is_nothing(keep in rules(), (snapshots, shuffled) in history().prop_flat_map(
        |snapshots| (Just(snapshots.clone()), Just(snapshots).prop_shuffle()),
    )) {
        prop_assert_eq!(decide(&keep, &snapshots), decide(&keep, &shuffled));
    }

    /// However long nobody was there in between, what was kept without the absence is kept with it; an age may grow by
    /// the two periods that any gap may count.
    #[test]
    fn an_absence_costs_nothing(
        keep in rules(), snapshots in history(), at in 0..60_usize, weeks in 1..300_i64,
    ) {
        let keep = Keep { zone: TimeZone::UTC, ..keep };
        let away = jumped(&snapshots, 0, at, -weeks * 7 * DAY);
        let (before, after) = (decide(&keep, &snapshots), decide(&raised(&keep, 1, 2), &away));
        let Rules::Some { within, .. } = &keep.rules else { unreachable!() };
        // Which is the newest of a month or a year is another when the calendar moves by weeks.
        for unit in [Unit::Hour, Unit::Day, Unit::Week] {
            let by = |all: &[Decision]| -> BTreeSet<u64> {
                let is = |reason: &Reason| matches!(reason, Reason::Newest(of, _) if *of == unit);
                all.iter().filter(|d| d.reasons.iter().any(is)).map(|d| d.sequence).collect()
            };
            let (before, after) = (by(&before), by(&after));
            // Where it falls into a period, that is two afterwards.
            let cut = |other: i64| match at.checked_sub(1).map(|i| (snapshots.get(i), snapshots.get(i + 1))) {
                Some((Some(a), Some(b))) => (a.at - MONDAY).div_euclid(other) == (b.at - MONDAY).div_euclid(other),
                _ => false,
            };
            let length = match unit { Unit::Hour => HOUR, Unit::Day => DAY, _ => 7 * DAY };
            prop_assert!(cut(length) || before.is_subset(&after), "{unit:?} {before:?} {after:?}");
        }
        let young = |all: &[Decision]| -> BTreeSet<u64> {
            all.iter().filter(|d| d.reasons.iter().any(|r| matches!(r, Reason::Within(_)))).map(|d| d.sequence).collect()
        };
        if within.is_some() {
            prop_assert!(young(&before).is_subset(&young(&after)));
        }
    }

    /// Who cannot read a locked file in the evening keeps what was read whole in the morning.
    #[test]
    fn a_partial_snapshot_never_takes_the_place_of_a_whole_one_of_its_period(
        counts in [0..30_u32, 0..20, 0..10, 0..14, 0..4], snapshots in history(),
    ) {
        for decision in decide(&keep(0, counts), &snapshots) {
            let at = snapshots[decision.sequence as usize - 1].at;
            for unit in 0..5 {
                let is_for_it = |reason: &Reason| matches!(reason, Reason::Newest(of, _) if *of == Unit::ALL[unit]);
                if !decision.reasons.iter().any(is_for_it) {
                    continue;
                }
                let of_it = period(unit, at);
                let there: Vec<&Snapshot> = snapshots.iter().filter(|one| period(unit, one.at) == of_it).collect();
                let whole = there.iter().rev().find(|one| one.completeness == Completeness::Complete);
                let best = whole.or(there.last()).map(|one| one.sequence);
                prop_assert_eq!(Some(decision.sequence), best, "{:?}", decision);
            }
        }
    }

    /// A clock that is a year ahead or behind for some time costs no snapshot of the rest. (By months and years, which
    /// snapshot is the newest of its period depends on where the calendar cuts.)
    #[test]
    fn a_jump_of_the_clock_costs_nothing_outside_of_it(
        keep in rules(), snapshots in history(), from in 0..60_usize, length in 1..40_usize, ahead in any::<bool>(),
    ) {
        let keep = without_months(&keep);
        let to = (from + length).min(snapshots.len());
        let wrong = jumped(&snapshots, from, to, if ahead { YEAR } else { -YEAR });
        let inside = from as u64 + 1..=to as u64;
        let outside = |kept: BTreeSet<u64>| -> BTreeSet<u64> {
            kept.into_iter().filter(|sequence| !inside.contains(sequence)).collect()
        };
        let (before, after) = (outside(kept(&keep, &snapshots)), outside(kept(&keep, &wrong)));
        prop_assert!(before.is_subset(&after), "{before:?} {after:?}");
    }
}

/// By hours and days the same snapshots are chosen inside of the jump, too.
#[test]
fn a_year_of_days_survives_a_jump_whole() {
    let keep = keep(1, [0, 30, 0, 0, 0]);
    let year: Vec<Snapshot> = (1..=365).map(|day| plain(day, MONDAY + day as i64 * DAY + 2 * HOUR)).collect();
    let sane = kept(&keep, &year);
    assert_eq!(sane.len(), 30);
    for (from, to) in [(340, 350), (350, 365), (364, 365), (336, 337)] {
        for shift in [YEAR, -YEAR] {
            assert!(sane.is_subset(&kept(&keep, &jumped(&year, from, to, shift))), "{from}..{to} {shift}");
        }
    }
}

#[test]
fn a_laptop_that_was_away_for_half_a_year_keeps_its_days_and_weeks() {
    let daily = |day: u64| plain(day, MONDAY + day as i64 * DAY);
    let mut snapshots: Vec<Snapshot> = (1..=60).map(daily).collect();
    let keep = Keep { rules: Rules::of(1, [0, 7, 4, 0, 0]), ..Keep::default() };
    let before = kept(&keep, &snapshots);
    snapshots.push(plain(61, MONDAY + 240 * DAY));
    let after = kept(&keep, &snapshots);
    assert!(before.is_subset(&after) && after.contains(&61), "{before:?} {after:?}");
}

#[test]
fn reasons_are_told_in_words() {
    let mut snapshots: Vec<Snapshot> = (1..=40).map(|n| plain(n, MONDAY + n as i64 * 12 * HOUR)).collect();
    snapshots[2].tags = vec!["before-upgrade".to_owned()];
    snapshots[4].pinned = Pinned::Yes;
    let Rules::Some { last, periods, .. } = Rules::of(1, [0, 2, 1, 1, 1]) else { panic!() };
    let tags = BTreeSet::from(["before-upgrade".to_owned()]);
    let rules = Rules::Some { last, periods, within: Some(6 * HOUR), tags };
    let all = decide(&Keep { rules, ..Keep::default() }, &snapshots);
    let told = |sequence: u64| {
        let reasons = &all.iter().find(|decision| decision.sequence == sequence).unwrap().reasons;
        reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        told(40),
        "last 1, floor of 3, daily 2023-12-10, weekly 2023-W49, monthly 2023-12, yearly 2023, within 6h"
    );
    assert_eq!(told(39), "floor of 3, daily 2023-12-09");
    assert_eq!((told(3), told(5), told(6)), ("tag before-upgrade".into(), "pinned".into(), String::new()));
}

#[test]
fn days_are_those_of_the_policys_zone_and_the_hour_that_comes_twice_counts_twice() {
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let evening = [plain(1, MONDAY + 22 * HOUR), plain(2, MONDAY + 23 * HOUR + 1_800)];
    let all = |keep: &Keep| decide(keep, &evening).iter().filter(|d| daily(&d.reasons)).count();
    fn daily(reasons: &[Reason]) -> bool {
        reasons.iter().any(|reason| matches!(reason, Reason::Newest(Unit::Day, _)))
    }
    assert_eq!(all(&keep(0, [0, 9, 0, 0, 0])), 1);
    assert_eq!(all(&Keep { zone: berlin.clone(), ..keep(0, [0, 9, 0, 0, 0]) }), 2);
    // 2023-10-29 02:30, in summer and in winter time.
    let twice: Vec<Snapshot> = (1..=6).map(|n| plain(n, 1_698_539_400 + (n as i64 - 1) * HOUR)).collect();
    let hourly = Keep { zone: berlin, ..keep(0, [6, 0, 0, 0, 0]) };
    assert_eq!(kept(&hourly, &twice).len(), 6);
}
