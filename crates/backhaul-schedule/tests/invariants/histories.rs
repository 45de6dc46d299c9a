//! Promises that hold in any history, one test for each group of them.

use backhaul_schedule::policy::Admission;
use proptest::prelude::*;

use super::ops::{Op, history};
use super::world::World;

/// Histories for each promise.
const CASES: u32 = 64;

fn live(admission: &Admission, ops: &[Op]) -> World {
    let mut world = World::new(admission.clone());
    for op in ops {
        world.apply(op);
    }
    world
}

fn holds(promises: &[u8], admission: &Admission, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut world = World::new(admission.clone());
    for op in ops {
        world.apply(op);
        if let Some((promise, how, at)) = world.broken.iter().find(|(promise, ..)| promises.contains(promise))
        {
            let log = world.log[at.saturating_sub(20)..*at].join("\n");
            return Err(TestCaseError::fail(format!("{promise}: {how}\n{log}")));
        }
    }
    Ok(())
}

macro_rules! promises {
    ($($(#[$about:meta])* $name:ident: $promises:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]
            $($(#[$about])* #[test]
            fn $name((admission, ops) in history()) {
                holds(&$promises, &admission, &ops)?;
            })*
        }
    };
}

promises! {
    /// 1.
    a_client_never_has_two_runs: [1];
    /// 2.
    no_run_begins_above_any_bound: [2];
    /// 3.
    every_slot_that_is_taken_is_given_back_once: [3];
    /// 4, 5.
    only_the_newest_connection_that_asks_is_let_in: [4, 5];
    /// 9.
    nothing_starts_by_itself_outside_of_its_window_or_in_a_pause: [9];
    /// 10.
    a_period_has_one_run_that_nobody_asked_for: [10];
    /// 12, 13.
    nudges_are_few_and_have_a_reason: [12, 13];
    /// 15.
    dials_are_bounded_and_not_for_who_is_there: [15];
    /// 18.
    who_is_sent_away_knows_when_to_come_back: [18];
    /// 19.
    no_clock_ends_a_lease_early_or_starts_a_run: [19];
    /// 21.
    what_was_seen_stays_seen: [21];
    /// 22.
    an_alert_is_raised_once_and_ends_with_a_success: [22];
    /// 24: what a server that starts again has is what it knew.
    nothing_is_known_that_is_not_written_down: [24];
    /// 25.
    nothing_is_left_of_a_client_that_is_removed: [25];
    /// 26.
    whoever_is_not_running_is_told_a_true_reason: [26];
    /// 27.
    a_free_slot_and_a_client_for_it_are_never_both_left: [27];
    /// 28, the part about time: no timer fires for ever.
    a_timer_whose_time_has_come_is_gone: [28];
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]
    /// 24.
    #[test]
    fn the_same_events_lead_to_the_same_actions((admission, ops) in history()) {
        prop_assert_eq!(live(&admission, &ops).log, live(&admission, &ops).log);
    }
}
