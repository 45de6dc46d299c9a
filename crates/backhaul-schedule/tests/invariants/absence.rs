//! Clients that are not there, nudges that do not arrive, servers that start again.

use std::collections::BTreeMap;

use backhaul_schedule::fleet::{AlertKind, Outcome, Trigger, Via, What};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::reach::DialResult;
use backhaul_schedule::{Action, Event, Fleet, Now};
use proptest::prelude::*;

use super::world::{DAY, HOUR, Key, START, Shape, key, sighting};

fn shape(mode: u8) -> Shape {
    Shape { mode, address: true, group: 0, vault: 0, window: 0, period: 0, pause: None }
}

/// Dials in vain for some days, per day.
fn dial_in_vain(mode: u8, rpo_days: i64, days: usize) -> Vec<u32> {
    let mut fleet = Fleet::new(Admission::default());
    let mut now = Now { boot: 10, wall: START - START % DAY };
    let mut plan = shape(mode).plan(now.wall);
    let policy = backhaul_schedule::Policy { rpo: rpo_days * DAY, ..(*plan.policy).clone() };
    plan.policy = policy.into();
    let mut dials = vec![0; days];
    let mut actions = fleet.step(now, Event::Known(key(1), Box::new(plan), Some(now.wall - HOUR)));
    loop {
        while let Some(action) = actions.pop() {
            if matches!(action, Action::Dial(_) | Action::Knock(..)) {
                dials[((now.wall - (START - START % DAY)) / DAY) as usize] += 1;
                actions.extend(fleet.step(now, Event::Dialled(key(1), DialResult::Silent, None)));
            }
        }
        let Some(at) = fleet.next_deadline() else { return dials };
        let passed = at.saturating_sub(now.boot).max(1);
        now = Now { boot: now.boot + passed, wall: now.wall + passed as i64 };
        if now.wall >= START - START % DAY + days as i64 * DAY {
            return dials;
        }
        actions = fleet.step(now, Event::Tick);
    }
}

/// 16.
#[test]
fn a_client_that_is_away_costs_few_dials_and_none_once_it_is_lost() {
    for mode in [0, 2] {
        let dials = dial_in_vain(mode, 2, 90);
        assert!(dials.iter().all(|day| *day <= 13), "{dials:?}");
        assert!(dials[62..].iter().all(|day| *day == 0), "dialled though it is lost: {dials:?}");
    }
}

/// 7: a day's dials are spent, the next day has new ones, however long the limit is.
#[test]
fn each_period_has_its_dials() {
    let dials = dial_in_vain(0, 30, 20);
    assert!(dials[1..20].iter().all(|day| (1..=13).contains(day)), "{dials:?}");
}

/// 7, 16: a client whose listener is not reached for days comes by itself, and is dialled weekly however often it comes.
#[test]
fn a_client_that_is_never_reached_is_dialled_weekly_and_backed_up_when_it_comes() {
    let mut fleet = Fleet::new(Admission::default());
    let start = START - START % DAY;
    let mut now = Now { boot: 10, wall: start };
    let plan = shape(0).plan(now.wall);
    let mut actions = fleet.step(now, Event::Known(key(1), Box::new(plan), Some(now.wall - HOUR)));
    let (mut dials, mut runs, mut session) = (vec![0; 30], 0, 0);
    while now.wall < start + 30 * DAY - HOUR {
        while let Some(action) = actions.pop() {
            if let Action::Dial(client) = action {
                dials[((now.wall - start) / DAY) as usize] += 1;
                actions.extend(fleet.step(now, Event::Dialled(client, DialResult::Silent, None)));
            }
        }
        now = Now { boot: now.boot + 1_800, wall: now.wall + 1_800 };
        actions = fleet.step(now, Event::Tick);
        // It checks in every four hours, and asks when it is told that it is due.
        if now.wall % (4 * HOUR) == 0 {
            session += 1;
            actions.extend(fleet.step(now, Event::Contact(key(1), session, Via::Visit, sighting())));
            if fleet.due_in(now, &key(1)) == 0 {
                session += 1;
                let asked = fleet.step(now, Event::Request(key(1), session, Trigger::Timer, None));
                if asked.contains(&Action::Grant(key(1), session)) {
                    runs += 1;
                    let outcome = Outcome::Succeeded { at: now.wall, took: 60 };
                    actions.extend(fleet.step(now, Event::Ended(key(1), session, outcome)));
                }
                actions.extend(asked);
            }
        }
    }
    assert!(runs >= 28, "{runs} runs in 30 days, {dials:?}");
    let later: u32 = dials[5..].iter().sum();
    assert!((3..=5).contains(&later), "weekly from the fifth day on: {dials:?}");
}

/// What `auto` judges by is what happened: lateness, and who mended it.
#[test]
fn lateness_and_what_mended_it_are_remembered() {
    let mut fleet = Fleet::new(Admission::default());
    let mut now = Now { boot: 10, wall: START };
    let plan = shape(2).plan(now.wall);
    fleet.step(now, Event::Known(key(1), Box::new(plan), Some(now.wall)));
    for (session, trigger, by) in [(1, Trigger::Timer, "client check-in"), (2, Trigger::Nudge, "nudge")] {
        now = Now { boot: now.boot + 3 * DAY as u64, wall: now.wall + 3 * DAY };
        fleet.step(now, Event::Contact(key(1), session, Via::Visit, sighting()));
        fleet.step(now, Event::Request(key(1), session, trigger, None));
        fleet.step(now, Event::Ended(key(1), session, Outcome::Succeeded { at: now.wall, took: 9 }));
        let said = fleet.recommend(now, &key(1)).unwrap();
        assert_eq!(u64::from(said.reasons.late), session, "{said}");
        assert!(said.to_string().contains(by), "{said}");
    }
}

/// An agent that comes when its own clock says so.
#[derive(Debug, Clone, Copy)]
struct Agent {
    mode: u8,
    linked: bool,
    /// Seconds since boot at which it comes.
    next: u64,
    /// It is there in these hours of a day.
    hours: (u64, u64),
    /// Its clock does not wake it sooner than so many seconds after the last time.
    pace: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Post {
    Arrives,
    IsLost,
}

/// Who had a success on which day.
fn live(agents: &[Agent], post: Post, days: u64) -> BTreeMap<Key, Vec<u64>> {
    let mut agents = agents.to_vec();
    let mut fleet = Fleet::new(Admission { slots: 50, ..Admission::default() });
    let base = START - START % DAY;
    let mut session = 0;
    let mut successes: BTreeMap<Key, Vec<u64>> = BTreeMap::new();
    let mut runs: Vec<(u64, Key, u64)> = Vec::new();
    for (i, agent) in (0..).zip(&agents) {
        let now = Now { boot: 0, wall: base };
        fleet.step(now, Event::Known(key(i), Box::new(shape(agent.mode).plan(base)), Some(base - HOUR)));
    }
    for boot in (0..days * DAY as u64).step_by(60) {
        let now = Now { boot, wall: base + boot as i64 };
        let mut actions = fleet.step(now, Event::Tick);
        let (over, on): (Vec<_>, Vec<_>) = runs.drain(..).partition(|(at, ..)| *at <= boot);
        runs = on;
        for (_, key, session) in over {
            successes.entry(key).or_default().push(boot / DAY as u64);
            actions.extend(
                fleet.step(now, Event::Ended(key, session, Outcome::Succeeded { at: now.wall, took: 120 })),
            );
        }
        let hour = boot / 3_600 % 24;
        for (i, agent) in (0u8..).zip(&mut agents) {
            let here = (agent.hours.0..agent.hours.1).contains(&hour);
            if here != agent.linked && agent.mode != 1 {
                session += 1;
                agent.linked = here;
                let event = match here {
                    true => Event::Contact(key(i), session, Via::Standing, sighting()),
                    false => Event::LinkLost(key(i), session - 1),
                };
                actions.extend(fleet.step(now, event));
            }
            let runs_now = runs.iter().any(|(_, running, _)| *running == key(i));
            if here && boot >= agent.next && !runs_now {
                session += 1;
                actions.extend(fleet.step(now, Event::Contact(key(i), session, Via::Visit, sighting())));
                let due_in = fleet.due_in(now, &key(i));
                agent.next = boot + due_in.clamp(agent.pace, 4 * 3_600);
                if due_in == 0 {
                    actions.extend(fleet.step(now, Event::Request(key(i), session, Trigger::Timer, None)));
                }
            }
        }
        while let Some(action) = actions.pop() {
            match action {
                Action::Grant(key, session) => runs.push((boot + 120, key, session)),
                Action::Nudge(to, _, _) | Action::Knock(to, _) => {
                    let knocked = matches!(action, Action::Knock(..));
                    let (_, agent) = (0u8..).zip(&mut agents).find(|(i, _)| key(*i) == to).unwrap();
                    let here = (agent.hours.0..agent.hours.1).contains(&hour) && post == Post::Arrives;
                    if here {
                        agent.next = boot;
                    }
                    if knocked {
                        let result = if here { DialResult::Answered } else { DialResult::Silent };
                        actions.extend(fleet.step(now, Event::Dialled(to, result, None)));
                    }
                }
                _ => {}
            }
        }
    }
    successes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    /// 14.
    #[test]
    fn nudges_change_when_and_never_whether(all in prop::collection::vec((1..3u8, 0..12u64, 6..12u64, 60..4 * 3_600u64), 1..6)) {
        let agents: Vec<Agent> = all
            .into_iter()
            .map(|(mode, from, hours, pace)| Agent { mode, linked: false, next: 0, hours: (from, from + hours), pace })
            .collect();
        let (with, without) = (live(&agents, Post::Arrives, 6), live(&agents, Post::IsLost, 6));
        for i in 0..agents.len() as u8 {
            prop_assert_eq!(with[&key(i)].len(), without[&key(i)].len());
            prop_assert_eq!(&with[&key(i)], &without[&key(i)]);
        }
    }
}

/// A network of so many machines, some of which do not answer.
struct Network {
    fleet: Fleet,
    now: Now,
    silent: u8,
    dark: bool,
    raised: u32,
    cleared: u32,
    /// Dials while it is known to be silent, in seconds since boot.
    probes: Vec<u64>,
}

impl Network {
    fn new(members: u8, silent: u8) -> Self {
        let fleet = Fleet::new(Admission { slots: 100, dials: 100, ..Admission::default() });
        let now = Now { boot: 10, wall: START };
        let mut network = Self { fleet, now, silent, dark: false, raised: 0, cleared: 0, probes: Vec::new() };
        for i in 0..members {
            let plan = Box::new(shape(0).plan(START - DAY));
            network.fleet.step(now, Event::Known(key(i), plan, Some(START - 3 * DAY)));
        }
        for i in silent..members {
            let session = u64::from(i) + 1;
            network.step(Event::Dialled(key(i), DialResult::Answered, Some(session)));
            network.step(Event::Ended(key(i), session, Outcome::Succeeded { at: START, took: 60 }));
        }
        for i in 0..silent {
            network.step(Event::Dialled(key(i), DialResult::Silent, None));
        }
        network
    }

    fn step(&mut self, event: Event) {
        for action in self.fleet.step(self.now, event) {
            match action {
                Action::Dial(of) => {
                    if self.dark {
                        self.probes.push(self.now.boot);
                    }
                    let known = (0..self.silent).any(|i| key(i) == of);
                    assert!(known, "one that has its snapshot is dialled");
                    self.step(Event::Dialled(of, DialResult::Silent, None));
                }
                Action::Alert(alert) if alert.kind == AlertKind::GroupSilent => match alert.what {
                    What::Raised => (self.raised, self.dark) = (self.raised + 1, true),
                    What::Cleared => (self.cleared, self.dark) = (self.cleared + 1, false),
                    What::Reminder => {}
                },
                _ => {}
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        let until = self.now.boot + seconds;
        while let Some(at) = self.fleet.next_deadline().filter(|at| *at < until) {
            let passed = at.saturating_sub(self.now.boot).max(1);
            self.now = Now { boot: self.now.boot + passed, wall: self.now.wall + passed as i64 };
            self.step(Event::Tick);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]
    /// 15, 22: when most of a network do not answer, that is one alert, and one dial now and then; it ends when one is heard.
    #[test]
    fn a_silent_network_is_one_alert_and_one_probe_at_a_time(members in 1..80u8, silent in 0..80u8) {
        let silent = silent.min(members);
        let most = silent >= 3 && u32::from(silent) * 100 > u32::from(members) * 55;
        let mut network = Network::new(members, silent);
        // Until midnight: then those that answer are due again.
        network.pass(3 * HOUR as u64);
        prop_assert_eq!((network.raised, network.cleared), (u32::from(most), 0));
        let probes = &network.probes;
        prop_assert!(!most || (3..=6).contains(&probes.len()), "{probes:?}");
        prop_assert!(probes.windows(2).all(|pair| pair[1] >= pair[0] + 300), "{probes:?}");
        network.step(Event::Contact(key(0), 1_000, Via::Visit, sighting()));
        prop_assert_eq!(network.cleared, u32::from(most));
    }
}

/// 25: a group that was silent is forgotten with its last client.
#[test]
fn a_silent_network_without_clients_is_forgotten() {
    let mut fleet = Fleet::new(Admission { slots: 100, dials: 100, ..Admission::default() });
    let now = Now { boot: 10, wall: START };
    for i in 0..5 {
        fleet.step(now, Event::Known(key(i), Box::new(shape(0).plan(START - DAY)), Some(START - 3 * DAY)));
    }
    let told: Vec<Action> =
        (0..5).flat_map(|i| fleet.step(now, Event::Dialled(key(i), DialResult::Silent, None))).collect();
    assert!(told.iter().any(|action| matches!(action, Action::Alert(_))), "{told:?}");
    let told: Vec<Action> = (0..5).flat_map(|i| fleet.step(now, Event::Removed(key(i)))).collect();
    assert!(told.iter().any(|action| matches!(action, Action::Alert(alert) if alert.what == What::Cleared)));
    assert_eq!(fleet.next_deadline(), None);
}

/// 15, 22: laptops that are away do not make a network silent.
#[test]
fn laptops_that_do_not_answer_a_knock_are_no_silent_network() {
    let mut fleet = Fleet::new(Admission { slots: 100, dials: 100, ..Admission::default() });
    let now = Now { boot: 10, wall: START };
    for i in 0..5 {
        fleet.step(now, Event::Known(key(i), Box::new(shape(2).plan(START - DAY)), Some(START - 3 * DAY)));
        let told = fleet.step(now, Event::Dialled(key(i), DialResult::Silent, None));
        assert_eq!(told, []);
    }
}

/// A dial in vain is remembered until a dial is answered or a run ends: who comes meanwhile is told that it is due.
#[test]
fn whoever_was_dialled_in_vain_is_due_when_it_comes() {
    let mut fleet = Fleet::new(Admission::default());
    let (now, mut plan) = (Now { boot: 10, wall: START }, shape(0).plan(START - 9 * DAY));
    plan.policy = backhaul_schedule::Policy { rpo: 9 * DAY, ..(*plan.policy).clone() }.into();
    let dialled = fleet.step(now, Event::Known(key(1), Box::new(plan), Some(START - 2 * DAY)));
    assert_eq!(dialled, [Action::Dial(key(1))]);
    assert!(fleet.due_in(now, &key(1)) > 0, "it is being dialled");
    fleet.step(now, Event::Dialled(key(1), DialResult::Silent, None));
    fleet.step(now, Event::Contact(key(1), 1, Via::Visit, sighting()));
    assert_eq!(fleet.due_in(now, &key(1)), 0);
}

/// Somebody asked for it: whether it is due does not matter. It is good for one run.
#[test]
fn a_nudge_by_hand_brings_a_run_that_is_not_due() {
    let mut fleet = Fleet::new(Admission::default());
    let now = Now { boot: 10, wall: START };
    fleet.step(now, Event::Known(key(1), Box::new(shape(2).plan(START - DAY)), Some(START - 60)));
    fleet.step(now, Event::Contact(key(1), 1, Via::Standing, sighting()));
    let nudged = fleet.step(now, Event::NudgeWanted(key(1)));
    assert!(matches!(nudged[..], [Action::Nudge(_, 1, _)]), "{nudged:?}");
    let request = |session| Event::Request(key(1), session, Trigger::Nudge, None);
    assert_eq!(fleet.step(now, request(2)), [Action::Grant(key(1), 2)]);
    fleet.step(now, Event::Ended(key(1), 2, Outcome::Succeeded { at: START, took: 1 }));
    let again = fleet.step(now, request(3));
    assert!(matches!(again[..], [Action::Defer(..)]), "{again:?}");
}
