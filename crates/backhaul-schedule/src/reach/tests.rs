//! Archetypes of clients and what is recommended for them; [`histories`] are random.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

mod histories;

/// A Monday, 0:00 UTC.
const START: i64 = 1_779_667_200;

fn sighting(network: u64, nat: Nat, power: HasBattery) -> Sighting {
    Sighting { network, nat, power }
}

/// 8:00 to 20:00 UTC.
fn office(hour: i64) -> InWindow {
    if (8..20).contains(&(hour / HOUR % 24)) { InWindow::Yes } else { InWindow::No }
}

fn always(_: i64) -> InWindow {
    InWindow::Yes
}

fn at(day: i64, hour: i64) -> i64 {
    START + day * DAY + hour * HOUR
}

/// On from 8:00 to 20:00, dialled at 10:00, checks in every four hours.
fn desktop(reach: &mut Reach, days: std::ops::Range<i64>) {
    for day in days {
        for hour in [8, 12, 16, 20] {
            reach.contact(at(day, hour) - 60, &sighting(7, Nat::No, HasBattery::No));
        }
        reach.contact(at(day, 8), &sighting(7, Nat::No, HasBattery::No));
        reach.dialled(at(day, 10), DialResult::Answered);
    }
}

/// At home from 18:00 to 21:00, behind NAT; the server's dial at noon finds nothing.
fn home_laptop(days: std::ops::Range<i64>) -> Reach {
    let mut reach = Reach::new();
    for day in days {
        reach.dialled(at(day, 12), DialResult::Silent);
        reach.contact(at(day, 18), &sighting(11, Nat::Yes, HasBattery::Yes));
        reach.online(at(day, 18), at(day, 21));
    }
    reach
}

/// Two days here, two there, one at home; answers in the office.
fn roaming_laptop(days: std::ops::Range<i64>) -> Reach {
    let mut reach = Reach::new();
    for day in days {
        let (network, nat) = [(1, Nat::No), (1, Nat::No), (2, Nat::No), (3, Nat::Yes)][day as usize % 4];
        let answer = if nat == Nat::No { DialResult::Answered } else { DialResult::Silent };
        reach.dialled(at(day, 10), answer);
        reach.contact(at(day, 10), &sighting(network, nat, HasBattery::Yes));
        reach.online(at(day, 9), at(day, 17));
    }
    reach
}

/// Out of its bag once in five days, for an hour.
fn bag_laptop(days: std::ops::Range<i64>) -> Reach {
    let mut reach = Reach::new();
    for day in days {
        reach.dialled(at(day, 10), DialResult::Silent);
        if day % 5 == 0 {
            reach.contact(at(day, 15), &sighting(5, Nat::Unknown, HasBattery::Yes));
            reach.online(at(day, 15), at(day, 16));
        }
    }
    reach
}

fn recommended(reach: &Reach, day: i64, rpo: i64) -> String {
    reach.recommend(at(day, 0), &office, rpo).to_string()
}

/// A desktop that answered no dial any more, though it came by itself in the morning.
fn desktop_behind_a_new_firewall() -> Reach {
    let mut reach = Reach::new();
    desktop(&mut reach, 0..30);
    for day in 30..45 {
        reach.contact(at(day, 9), &sighting(7, Nat::No, HasBattery::No));
        reach.dialled(at(day, 10), DialResult::Silent);
    }
    reach
}

#[test]
fn archetypes_are_told_apart_and_the_reasons_are_numbers() {
    let mut desk = Reach::new();
    desktop(&mut desk, 0..30);
    let gone = desktop_behind_a_new_firewall();
    let figures = |reach: &Reach, day, rpo, mode: &str, figures: &str| {
        assert_eq!(recommended(reach, day, rpo * HOUR), format!("{mode}: {figures}; RPO {rpo} h"));
    };
    figures(&desk, 30, 36, "server", "online 100 % of window; dial ok 21/21; 1 network; behind NAT 0 %");
    figures(&gone, 45, 36, "client", "online 34 % of window; dial ok 6/21; 1 network; behind NAT 0 %");
    let home = "online 16 % of window; dial ok 0/21; 1 network; behind NAT 100 %; has a battery";
    figures(&home_laptop(0..30), 30, 36, "client", home);
    figures(&home_laptop(0..30), 30, 24, "hybrid", home);
    let roams = "online 75 % of window; dial ok 16/21; 3 networks; behind NAT 23 %; has a battery";
    figures(&roaming_laptop(0..30), 30, 48, "client", roams);
    let bag = "online 3 % of window; dial ok 0/21; 1 network; NAT unknown; has a battery";
    figures(&bag_laptop(0..30), 30, 36, "client", bag);
    let few =
        "2 of 7 days known; online 23 % of window; dial ok 0/3; 1 network; behind NAT 100 %; has a battery";
    figures(&home_laptop(0..3), 3, 36, "client (provisional)", few);
    let nothing = "0 of 7 days known; no hour of window known; never dialled; network unknown; NAT unknown";
    figures(&Reach::new(), 0, 36, "server (provisional)", nothing);
}

#[test]
fn having_been_late_twice_makes_the_server_help_and_what_helped_is_named() {
    let mut reach = home_laptop(0..30);
    let says = |reach: &Reach| recommended(reach, 30, 36 * HOUR);
    reach.was_late(at(20, 0));
    assert!(
        says(&reach).starts_with("client: ") && says(&reach).ends_with("; late once"),
        "{}",
        says(&reach)
    );
    reach.was_late(at(25, 0));
    reach.recovered(at(25, 18), Remedy::CheckIn);
    assert!(says(&reach).starts_with("hybrid: "), "{}", says(&reach));
    assert!(says(&reach).ends_with("; late twice or more; last failure recovered by client check-in"));
    // Three weeks later that is over.
    assert_eq!(reach.recommend(at(47, 0), &office, 36 * HOUR).reasons.late, 0);
}

#[test]
fn a_client_that_was_never_dialled_may_come_to_be_pulled() {
    let mut reach = Reach::new();
    for day in 0..30 {
        reach.contact(at(day, 8), &sighting(7, Nat::No, HasBattery::No));
        reach.linked(at(day, 8), at(day, 20));
    }
    // Hybrid dials it, and what the dials say decides.
    assert_eq!(reach.recommend(at(30, 0), &office, 2 * DAY).mode, Mode::Hybrid);
    for day in 10..30 {
        reach.dialled(at(day, 9), DialResult::Answered);
    }
    assert_eq!(reach.recommend(at(30, 0), &office, 2 * DAY).mode, Mode::Server);
    // The same history in a window that it sleeps through half of.
    assert_eq!(reach.recommend(at(30, 0), &always, 2 * DAY).mode, Mode::Hybrid);
}

#[test]
fn one_thing_alone_makes_a_difference() {
    // An office machine that answers every dial, and is seen elsewhere on so many of 10 days.
    let seen = |elsewhere: i64, network: u64, nat: Nat| {
        let mut reach = Reach::new();
        desktop(&mut reach, 0..30);
        for day in 9..30 {
            let far = day % 10 < elsewhere;
            let (network, nat) = if far { (network, nat) } else { (7, Nat::No) };
            for _ in 0..if far { 50 } else { 1 } {
                reach.contact(at(day, 14), &sighting(network, nat, HasBattery::No));
            }
        }
        reach.recommend(at(30, 0), &office, 2 * DAY).mode
    };
    assert_eq!(seen(0, 7, Nat::No), Mode::Server);
    assert_eq!(seen(1, 8, Nat::No), Mode::Hybrid, "a second network");
    assert_eq!(seen(1, 7, Nat::Yes), Mode::Hybrid, "NAT now and then");
    assert_eq!(seen(9, 7, Nat::Yes), Mode::Client, "NAT most of the time");
}

#[test]
fn a_day_of_very_many_dials_keeps_their_ratio() {
    let mut reach = Reach::new();
    for n in 0..10_000 {
        let result = if n % 4 == 0 { DialResult::Answered } else { DialResult::Refused };
        reach.dialled(at(0, 1), result);
    }
    let dials = reach.recommend(at(0, 2), &always, DAY).reasons.dials;
    assert!((100..256).contains(&dials.of) && dials.at_least(23) && !dials.more_than(27), "{dials:?}");
}

#[test]
fn signs_of_life_speak_for_what_is_between_them_unless_the_link_was_seen_to_end() {
    let nothing = sighting(0, Nat::Unknown, HasBattery::Unknown);
    let online = |reach: &Reach| reach.recommend(at(0, 20), &office, DAY).reasons.online;
    let mut checks_in = Reach::new();
    let mut links = Reach::new();
    for hour in [8, 12, 16] {
        checks_in.contact(at(0, hour), &nothing);
        links.contact(at(0, hour), &nothing);
        links.online(at(0, hour), at(0, hour) + 60);
    }
    assert_eq!(online(&checks_in), Share { part: 9, of: 12 });
    assert_eq!(online(&links), Share { part: 3, of: 12 });
    let mut seldom = Reach::new();
    seldom.contact(at(0, 8), &nothing);
    seldom.contact(at(0, 14), &nothing);
    assert_eq!(online(&seldom), Share { part: 2, of: 12 });
}

#[test]
fn medians_and_what_is_left_of_a_stay() {
    let mut reach = Reach::new();
    assert_eq!((reach.duration(), reach.stretch(), reach.remaining(0, 0)), (None, None, None));
    for seconds in [100, 300, 200] {
        reach.ran(seconds);
        reach.online(at(0, 0), at(0, 0) + 10 * seconds as i64);
    }
    assert_eq!((reach.duration(), reach.stretch()), (Some(200), Some(2_000)));
    reach.ran(250);
    assert_eq!(reach.duration(), Some(225));
    assert_eq!(reach.remaining(at(1, 0), at(1, 0) + 500), Some(1_500));
    assert_eq!(reach.remaining(at(1, 0), at(2, 0)), Some(60));
    assert_eq!(reach.remaining(at(1, 0), at(0, 0)), Some(2_000));
    // Only the last ones count.
    for _ in 0..8 {
        reach.ran(9);
    }
    assert_eq!(reach.duration(), Some(9));
}

#[test]
fn a_link_that_is_dialled_anew_is_no_new_stay() {
    let mut reach = Reach::new();
    for day in 0..3 {
        // Quieter after a second, as in every network without translation, and cut once at noon.
        reach.online(at(day, 9), at(day, 9) + 1);
        reach.online(at(day, 9) + 1, at(day, 12));
        reach.online(at(day, 12) + 60, at(day, 17));
    }
    assert_eq!(reach.stretch(), Some(8 * HOUR as u64));
    // Who comes back later was away.
    reach.online(at(3, 9), at(3, 9) + 10);
    reach.online(at(3, 9) + 71, at(3, 9) + 81);
    assert_eq!(reach.stretches[..2], [10, 10]);
}

#[test]
fn three_days_of_dials_in_vain_while_it_comes_by_itself_make_its_own_link_the_way() {
    let here = sighting(1, Nat::No, HasBattery::No);
    let vain = |days: i64, comes: bool| {
        let mut reach = Reach::new();
        reach.contact(at(0, 1), &here);
        for day in 0..days {
            // Many dials of one night are one scheduled day, also over midnight.
            for hour in [22, 23, 25, 29] {
                reach.dialled(at(day, hour), DialResult::Silent);
            }
        }
        if comes {
            reach.contact(at(days, 12), &here);
        }
        reach
    };
    assert!(!vain(2, true).falls_back());
    assert!(!vain(3, false).falls_back());
    let mut reach = vain(3, true);
    assert!(reach.falls_back());
    assert!(!reach.may_dial(at(4, 0)));
    assert!(reach.may_dial(at(10, 6)));
    reach.dialled(at(10, 6), DialResult::Refused);
    assert!(reach.falls_back() && !reach.may_dial(at(11, 0)));
    reach.dialled(at(18, 0), DialResult::Answered);
    assert!(!reach.falls_back() && reach.may_dial(at(18, 1)));
}

#[test]
fn networks_are_counted_for_three_weeks_and_no_more_are_kept_than_fit() {
    let mut reach = Reach::new();
    for network in 1..=20 {
        reach.contact(at(0, network as i64), &sighting(network, Nat::Unknown, HasBattery::Unknown));
    }
    let networks = |reach: &Reach, day| reach.recommend(at(day, 0), &always, DAY).reasons.networks;
    assert_eq!(networks(&reach, 2), 8);
    assert!(recommended(&reach, 2, DAY).contains("8 or more networks"));
    reach.contact(at(19, 0), &sighting(20, Nat::Unknown, HasBattery::Unknown));
    assert_eq!(networks(&reach, 19), 8);
    assert_eq!(networks(&reach, 22), 1);
}

#[test]
fn what_a_wrong_clock_has_seen_gives_way_first() {
    let seen = |reach: &mut Reach, day, network| {
        reach.contact(at(day, 0), &sighting(network, Nat::Unknown, HasBattery::Unknown));
    };
    let mut reach = Reach::new();
    for network in 1..=7 {
        seen(&mut reach, 0, network);
    }
    seen(&mut reach, 90_000, 8);
    seen(&mut reach, 1, 9);
    assert_eq!(reach.recommend(at(1, 1), &always, DAY).reasons.networks, 8);
}

#[test]
fn a_clock_that_was_wrong_for_a_while_leaves_no_lasting_trace() {
    let mut reach = Reach::new();
    desktop(&mut reach, 0..30);
    let wrong = sighting(9, Nat::Yes, HasBattery::No);
    for moment in [0, 4_000_000_000, i64::MAX, i64::MIN] {
        reach.contact(moment, &wrong);
        reach.dialled(moment, DialResult::Silent);
    }
    desktop(&mut reach, 30..60);
    assert_eq!(reach.recommend(at(60, 0), &office, 2 * DAY).mode, Mode::Server);
}

fn says(mode: Mode, provisional: bool) -> Recommendation {
    let mut says = Reach::new().recommend(START, &always, DAY);
    (says.mode, says.provisional) = (mode, provisional);
    says
}

#[test]
fn a_mode_takes_seven_days_to_gain_and_server_three_to_lose() {
    let mut auto = Auto::begin(&says(Mode::Hybrid, false));
    for day in 0..6 {
        for hour in 0..24 {
            assert_eq!(auto.consider(at(day, hour), &says(Mode::Server, false)), None);
        }
    }
    assert_eq!(auto.pending(), Some(Pending { to: Mode::Server, days: 6, needed: 7 }));
    let change = Change { from: Mode::Hybrid, to: Mode::Server };
    assert_eq!(auto.consider(at(6, 0), &says(Mode::Server, false)), Some(change));
    assert_eq!(auto.consider(at(7, 0), &says(Mode::Client, false)), None);
    assert_eq!(auto.consider(at(8, 0), &says(Mode::Hybrid, false)), None);
    let change = Change { from: Mode::Server, to: Mode::Client };
    assert_eq!(auto.consider(at(9, 0), &says(Mode::Client, false)), Some(change));
    // A day that disagrees begins the count anew.
    for day in 10..40 {
        let mode = if day % 7 == 0 { Mode::Client } else { Mode::Hybrid };
        assert_eq!(auto.consider(at(day, 0), &says(mode, false)), None);
    }
}

#[test]
fn a_guess_gives_way_at_once_and_data_never_to_a_guess() {
    let mut auto = Auto::begin(&says(Mode::Server, true));
    let change = Change { from: Mode::Server, to: Mode::Client };
    assert_eq!(auto.consider(at(0, 1), &says(Mode::Client, true)), Some(change));
    assert_eq!(auto.consider(at(1, 0), &says(Mode::Hybrid, false)), None);
    let change = Change { from: Mode::Client, to: Mode::Hybrid };
    assert_eq!(auto.consider(at(3, 0), &says(Mode::Hybrid, false)), Some(change));
    for day in 4..40 {
        assert_eq!(auto.consider(at(day, 0), &says(Mode::Server, true)), None);
    }
}

#[test]
fn a_mode_is_not_stuck_until_a_wrong_clock_is_right() {
    let server = says(Mode::Server, false);
    let mut settled = Auto::begin(&says(Mode::Hybrid, false));
    let mut guess = Auto::begin(&says(Mode::Hybrid, true));
    assert_eq!(settled.consider(at(90_000, 0), &server), None);
    assert!(guess.consider(at(90_000, 0), &says(Mode::Client, true)).is_some());
    for day in 0..9 {
        settled.consider(at(day, 0), &server);
        guess.consider(at(day, 0), &server);
    }
    assert_eq!((settled.mode(), guess.mode()), (Mode::Server, Mode::Server));
}
