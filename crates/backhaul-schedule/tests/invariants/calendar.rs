//! Days, changes of the clocks, and jumps of them: one run a period, no more and no less.

use std::sync::Arc;

use backhaul_schedule::due::period_begin;
use backhaul_schedule::fleet::{Outcome, Plan};
use backhaul_schedule::policy::{Admission, Group, Initiator, Policy, Window};
use backhaul_schedule::reach::{DialResult, Mode};
use backhaul_schedule::{Action, Event, Fleet, Now};
use jiff::Timestamp;
use jiff::civil::{Date, date, time};
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::world::{DAY, HOUR, Key};

/// A machine that is always there, dialled by the server; its runs take five minutes.
struct Desktop {
    fleet: Fleet,
    now: Now,
    key: Key,
    ends: Option<(u64, u64)>,
    began: Vec<i64>,
}

impl Desktop {
    fn new(key: Key, policy: Policy, wall: i64) -> Self {
        let plan = Plan {
            policy: Arc::new(policy),
            initiator: Initiator::Fixed(Mode::Server),
            has_address: true,
            group: Group::named("lab"),
            vault: "main".into(),
            paused_until: None,
            added: wall,
        };
        let mut desktop = Self {
            fleet: Fleet::new(Admission::default()),
            now: Now { boot: 1, wall },
            key,
            ends: None,
            began: Vec::new(),
        };
        desktop.step(Event::Known(key, Box::new(plan), None));
        desktop
    }

    fn step(&mut self, event: Event) {
        for action in self.fleet.step(self.now, event) {
            if matches!(action, Action::Dial(_)) {
                let session = self.now.boot;
                self.began.push(self.now.wall);
                self.ends = Some((self.now.boot + 300, session));
                self.step(Event::Dialled(self.key, DialResult::Answered, Some(session)));
            }
        }
    }

    fn live(&mut self, seconds: i64) {
        let until = self.now.wall + seconds;
        while self.now.wall < until {
            let end = self.ends.map(|(at, _)| at);
            let next = [end, self.fleet.next_deadline()].into_iter().flatten().min();
            let passed = next
                .map_or(60, |at| at.saturating_sub(self.now.boot))
                .clamp(1, (until - self.now.wall) as u64);
            self.now = Now { boot: self.now.boot + passed, wall: self.now.wall + passed as i64 };
            if let Some((_, session)) = self.ends.take_if(|(at, _)| *at <= self.now.boot) {
                self.step(Event::Ended(
                    self.key,
                    session,
                    Outcome::Succeeded { at: self.now.wall, took: 300 },
                ));
            }
            self.step(Event::Tick);
        }
    }
}

fn zone() -> impl Strategy<Value = TimeZone> {
    let zones = [
        "UTC0",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "EST5EDT,M3.2.0,M11.1.0",
        // Half an hour, and the southern half of the world.
        "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
        "NST3:30NDT,M3.2.0,M11.1.0",
        // At midnight: that day has no 00:00.
        "<-03>3<-02>,M3.5.0/0,M10.5.0/0",
    ];
    prop::sample::select(zones.map(|zone| TimeZone::posix(zone).unwrap()).to_vec())
}

/// Thirty days, most of them around a change of the clocks.
fn first_day() -> impl Strategy<Value = Date> {
    prop::sample::select(vec![
        date(2026, 3, 1),
        date(2026, 3, 20),
        date(2026, 10, 1),
        date(2026, 10, 20),
        date(2026, 6, 1),
    ])
}

fn local_day(window: &Window, at: i64) -> Date {
    let zoned = Timestamp::from_second(at).unwrap().to_zoned(window.zone.clone());
    let after_midnight = window.to <= window.from && zoned.time() < window.to;
    if after_midnight { zoned.date().yesterday().unwrap() } else { zoned.date() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// 11, 20.
    #[test]
    fn a_machine_that_is_always_on_has_one_run_on_each_local_day(
        zone in zone(), first in first_day(), key: Key, from in 0..24i8, minute in 0..60i8, hours in 3..24i8,
    ) {
        let to = time((from + hours) % 24, minute, 0, 0);
        let window = Window { from: time(from, minute, 0, 0), to, zone: zone.clone(), of_client: false };
        let policy = Policy { window: Some(window.clone()), ..Policy::default() };
        let start = first.at(12, 0, 0, 0).to_zoned(zone).unwrap().timestamp().as_second();
        let mut desktop = Desktop::new(key, policy, start);
        desktop.live(32 * DAY);
        let mut days: Vec<Date> = desktop.began.iter().map(|at| local_day(&window, *at)).collect();
        days.dedup();
        prop_assert_eq!(days.len(), desktop.began.len(), "twice on a day: {:?}", desktop.began);
        prop_assert!(days.len() >= 31, "{} days: {:?}", days.len(), days);
        for pair in days.windows(2) {
            prop_assert_eq!(pair[1], pair[0].tomorrow().unwrap(), "{:?} {:?}", window, desktop.began);
        }
    }

    /// 11: without a window, and for periods of any length.
    #[test]
    fn periods_do_not_drift(key: Key, hours in 1..72i64, spread in 0..72i64) {
        let period = hours * HOUR;
        let policy = Policy { period, rpo: period * 3 / 2, spread: (spread * HOUR).min(period * 9 / 10), ..Policy::default() };
        let mut desktop = Desktop::new(key, policy, 1_780_000_000);
        desktop.live(30 * period);
        let runs = desktop.began.len();
        prop_assert!((29..=31).contains(&runs), "{runs} runs in 30 periods");
    }

    /// 19.
    #[test]
    fn no_jump_of_the_clock_puts_a_run_off_for_more_than_a_period(
        key: Key, jumps in prop::collection::vec((-4_000 * DAY..4_000 * DAY, 0..3 * DAY), 1..4), window: bool,
    ) {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let window = window.then(|| Window { from: time(22, 0, 0, 0), to: time(6, 0, 0, 0), zone, of_client: false });
        let mut desktop = Desktop::new(key, Policy { window, ..Policy::default() }, 1_780_000_000);
        for (jump, then) in jumps {
            desktop.live(then + 1);
            desktop.now.wall = (desktop.now.wall + jump).clamp(DAY, 20_000_000_000);
            let began = desktop.began.len();
            desktop.step(Event::ClockJumped);
            prop_assert_eq!(desktop.began.len(), began, "started by the jump");
            desktop.live(2 * DAY + 2 * HOUR);
            prop_assert!(desktop.began.len() > began, "no run in two days after a jump by {} s", jump);
            prop_assert!(desktop.began.len() <= began + 4, "{:?}", &desktop.began[began..]);
        }
    }

    /// 10: the server itself sleeps for any number of days: then there is one run, at once, and one in each period from there on.
    #[test]
    fn after_any_absence_there_is_one_run(key: Key, window: bool, days in 3..400i64, seconds in 0..DAY) {
        let window = window.then(|| Window { from: time(22, 0, 0, 0), to: time(6, 0, 0, 0), zone: TimeZone::UTC, of_client: false });
        let policy = Policy { window, ..Policy::default() };
        let mut desktop = Desktop::new(key, policy.clone(), 1_780_000_000);
        desktop.live(2 * DAY);
        let began = desktop.began.len();
        let away = days * DAY + seconds;
        desktop.now = Now { boot: desktop.now.boot + away as u64, wall: desktop.now.wall + away };
        let back = desktop.now.wall;
        desktop.step(Event::Tick);
        desktop.live(600);
        let (caught_up, later) = desktop.began[began..].split_first().unwrap();
        prop_assert!(*caught_up <= back + 60, "only after {} s", caught_up - back);
        // The next period may begin a moment later.
        let is_next = |at: &i64| period_begin(&policy, *at) > *caught_up;
        prop_assert!(later.len() <= 1 && later.iter().all(is_next), "{} {:?}", caught_up, later);
        desktop.live(5 * DAY);
        let mut periods: Vec<i64> = desktop.began[began..].iter().map(|at| period_begin(&policy, *at)).collect();
        let runs = periods.len();
        periods.dedup();
        prop_assert!((5..=7).contains(&runs) && periods.len() == runs, "{:?}", &desktop.began[began..]);
    }
}

/// 9: who waits for a slot when the window shuts does not start after it.
#[test]
fn whoever_waits_when_the_window_shuts_waits_for_the_next() {
    let window =
        Window { from: time(8, 0, 0, 0), to: time(20, 0, 0, 0), zone: TimeZone::UTC, of_client: false };
    let policy = Policy { window: Some(window), spread: 60, ..Policy::default() };
    let evening = date(2026, 6, 1).at(19, 50, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp().as_second();
    let mut desktop = Desktop::new([9; 16], policy, evening);
    // Its first run is over; the next evening there is no slot until ten minutes after eight.
    desktop.live(DAY / 2);
    desktop.step(Event::Admission(Box::new(Admission { slots: 0, ..Admission::default() })));
    let began = desktop.began.len();
    desktop.live(DAY / 2 + 20 * 60);
    desktop.step(Event::Admission(Box::default()));
    assert_eq!(desktop.began.len(), began, "started outside of its window");
}

/// 20: on the night on which an hour comes twice, a moment in the second of them is in the window like any other; on the
/// one on which an hour is missing, so is a window that lay within it.
#[test]
fn no_moment_in_a_window_is_lost_on_the_night_of_the_change() {
    let midnight = TimeZone::posix("<-03>3<-02>,M3.5.0/0,M10.5.0/0").unwrap();
    let central = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let windows = [
        (midnight, date(2026, 10, 22), time(23, 2, 0, 0), time(2, 2, 0, 0)),
        (central.clone(), date(2026, 3, 26), time(2, 0, 0, 0), time(3, 0, 0, 0)),
        (central, date(2026, 10, 22), time(2, 30, 0, 0), time(3, 30, 0, 0)),
    ];
    for (zone, first, from, to) in windows {
        let window = Window { from, to, zone: zone.clone(), of_client: false };
        let start = first.at(12, 0, 0, 0).to_zoned(zone).unwrap().timestamp().as_second();
        for moment in (0..3_600u64).step_by(150) {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&moment.to_le_bytes());
            let policy = Policy { window: Some(window.clone()), ..Policy::default() };
            let mut desktop = Desktop::new(key, policy, start);
            desktop.live(6 * DAY);
            assert_eq!(desktop.began.len(), 6, "{from} to {to}, moment {moment}: {:?}", desktop.began);
        }
    }
}

/// 7, 9: a client that becomes late while its window is shut is started then, not when the window opens.
#[test]
fn whoever_becomes_late_is_started_though_the_window_is_shut() {
    let window =
        Window { from: time(22, 0, 0, 0), to: time(23, 0, 0, 0), zone: TimeZone::UTC, of_client: false };
    let policy = Policy { window: Some(window), rpo: 2 * HOUR, ..Policy::default() };
    let noon = date(2026, 6, 1).at(12, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp().as_second();
    let mut desktop = Desktop::new([9; 16], policy, noon);
    desktop.live(2 * HOUR + 60);
    assert_eq!(desktop.began, [noon + 2 * HOUR]);
}
