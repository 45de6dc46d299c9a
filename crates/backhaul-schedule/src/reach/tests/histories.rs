//! Random histories: whatever happened, what is kept is bounded, and comes to the same.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Happening {
    Wait(i64),
    Jump(i64),
    Contact(u64, u8, u8),
    Online(i64, i64),
    Linked(i64),
    Dialled(u8),
    Ran(u64),
    Late,
    Recovered,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (1i64..100_000).prop_map(Happening::Wait),
        1 => prop_oneof![any::<i64>(), -4_000_000i64..4_000_000].prop_map(Happening::Jump),
        4 => (0u64..20, 0u8..3, 0u8..3).prop_map(|(network, nat, power)| Happening::Contact(network, nat, power)),
        2 => (any::<i64>(), any::<i64>()).prop_map(|(from, to)| Happening::Online(from, to)),
        3 => (-10_000i64..3_000_000).prop_map(Happening::Linked),
        4 => (0u8..4).prop_map(Happening::Dialled),
        2 => any::<u64>().prop_map(Happening::Ran),
        1 => Just(Happening::Late),
        1 => Just(Happening::Recovered),
    ]
}

fn happen(reach: &mut Reach, now: &mut i64, what: &Happening) {
    match *what {
        Happening::Wait(seconds) => *now = now.saturating_add(seconds),
        Happening::Jump(by) => *now = now.saturating_add(by),
        Happening::Contact(network, nat, power) => {
            let nat = [Nat::No, Nat::Yes, Nat::Unknown][usize::from(nat)];
            let power = [HasBattery::No, HasBattery::Yes, HasBattery::Unknown][usize::from(power)];
            reach.contact(*now, &sighting(network, nat, power));
        }
        Happening::Online(from, to) => reach.online(from, to),
        Happening::Linked(seconds) => reach.linked(now.saturating_sub(seconds), *now),
        Happening::Dialled(how) => {
            let all = [DialResult::Answered, DialResult::Refused, DialResult::Silent, DialResult::Stranger];
            reach.dialled(*now, all[usize::from(how)]);
        }
        Happening::Ran(seconds) => reach.ran(seconds),
        Happening::Late => reach.was_late(*now),
        Happening::Recovered => reach.recovered(*now, Remedy::Nudge),
    }
}

proptest! {
    #[test]
    fn any_history_is_survived_bounded_and_repeatable(history in prop::collection::vec(happening(), 0..150)) {
        let (mut reach, mut again) = (Reach::new(), Reach::new());
        let (mut now, mut same) = (START, START);
        for what in &history {
            happen(&mut reach, &mut now, what);
            // Written down and read back after each step, and yet the same.
            happen(&mut again, &mut same, what);
            let text = serde_json::to_string(&again).unwrap();
            prop_assert!(text.len() <= 1_800, "{} bytes", text.len());
            again = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&reach, &again);
        }
        for moment in [now, START, 0, i64::MIN, i64::MAX] {
            let says = reach.recommend(moment, &always, i64::MIN);
            prop_assert_eq!(says, again.recommend(moment, &always, i64::MIN));
            prop_assert!(!says.to_string().is_empty());
            for share in [says.reasons.online, says.reasons.dials, says.reasons.behind_nat] {
                prop_assert!(share.part <= share.of);
            }
            prop_assert!(says.reasons.online.of <= 21 * 24 && says.reasons.days <= 21);
            prop_assert!(reach.remaining(moment, now).is_none_or(|seconds| seconds >= 60));
            reach.may_dial(moment);
        }
    }

    #[test]
    fn never_two_changes_within_three_days(
        days in prop::collection::vec((0i64..3, 0usize..3, any::<bool>()), 1..120),
    ) {
        let modes = [Mode::Server, Mode::Client, Mode::Hybrid];
        let mut auto = Auto::begin(&says(Mode::Server, true));
        let (mut day, mut last) = (0, None::<i64>);
        for (skip, mode, provisional) in days {
            day += skip;
            let before = auto.mode();
            let change = auto.consider(at(day, 3), &says(modes[mode], provisional));
            prop_assert_eq!(change.is_some(), auto.mode() != before);
            if change.is_some() {
                prop_assert!(last.is_none_or(|last| day - last >= 3), "{last:?} {day}");
                last = Some(day);
            }
            let text = serde_json::to_string(&auto).unwrap();
            prop_assert_eq!(serde_json::from_str::<Auto>(&text).unwrap(), auto);
        }
    }
}
