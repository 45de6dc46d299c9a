//! Who is told of what, and when: late alone is nothing, late though it was here is.

use backhaul_schedule::fleet::{Alert, AlertKind, NotNow, Outcome, Subject, Trigger, Via, What};
use backhaul_schedule::policy::Admission;
use backhaul_schedule::{Action, Event, Fleet, Now};

use super::world::{DAY, HOUR, START, Shape, key, sighting};

/// One laptop and its server, with hands for whoever tells its story.
struct Scene {
    fleet: Fleet,
    now: Now,
    session: u64,
    told: Vec<(i64, AlertKind, What)>,
}

impl Scene {
    /// A hybrid laptop without an address that was backed up at 9:00 of a Friday.
    fn on_friday() -> Self {
        let friday = START - START % (7 * DAY) + DAY + 9 * HOUR;
        let now = Now { boot: 10, wall: friday };
        let shape = Shape { mode: 2, address: false, group: 0, vault: 0, window: 0, period: 0, pause: None };
        let mut scene = Self { fleet: Fleet::new(Admission::default()), now, session: 0, told: Vec::new() };
        scene.tell(Event::Known(key(1), Box::new(shape.plan(friday - 30 * DAY)), Some(friday)));
        scene
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let actions = self.fleet.step(self.now, event);
        for action in actions.clone() {
            if let Action::Alert(Alert { kind, what, subject: Subject::Client(_), .. }) = action {
                self.told.push((self.now.wall, kind, what));
            }
        }
        actions
    }

    /// Lets time pass; the fleet is asked when it wants to be, and not otherwise.
    fn pass(&mut self, seconds: i64) {
        let end = self.now.wall + seconds;
        while let Some(at) = self.fleet.next_deadline() {
            let passed = at.saturating_sub(self.now.boot).max(1);
            if self.now.wall + passed as i64 > end {
                break;
            }
            self.now = Now { boot: self.now.boot + passed, wall: self.now.wall + passed as i64 };
            self.tell(Event::Tick);
        }
        let left = end - self.now.wall;
        self.now = Now { boot: self.now.boot + left as u64, wall: end };
    }

    fn link(&mut self) {
        self.session += 1;
        self.tell(Event::Contact(key(1), self.session, Via::Standing, sighting()));
    }

    fn unlink(&mut self) {
        self.tell(Event::LinkLost(key(1), self.session));
    }

    /// It does not want to, whatever it is asked.
    fn is_unwilling(&mut self) {
        let not_now = NotNow { reason: "on battery".to_owned(), until: self.now.wall + 90 * DAY };
        self.tell(Event::Unwilling(key(1), not_now));
    }

    fn run(&mut self, outcome: impl FnOnce(i64) -> Outcome) {
        self.session += 1;
        self.tell(Event::Contact(key(1), self.session, Via::Visit, sighting()));
        self.tell(Event::Request(key(1), self.session, Trigger::Manual, None));
        let outcome = outcome(self.now.wall);
        self.tell(Event::Ended(key(1), self.session, outcome));
    }

    fn kinds(&self) -> Vec<(AlertKind, What)> {
        self.told.iter().map(|(_, kind, what)| (*kind, *what)).collect()
    }
}

#[test]
fn a_weekend_and_a_holiday_tell_nobody() {
    let mut scene = Scene::on_friday();
    scene.link();
    scene.pass(9 * HOUR);
    scene.unlink();
    // Saturday, Sunday, and nine days more.
    scene.pass(11 * DAY);
    assert_eq!(scene.told, []);
}

#[test]
fn who_is_late_and_here_for_eight_hours_is_told_of_in_time_and_once() {
    let mut scene = Scene::on_friday();
    scene.pass(3 * DAY);
    scene.link();
    scene.is_unwilling();
    let began = scene.now.wall;
    scene.pass(3 * HOUR);
    scene.unlink();
    scene.pass(15 * HOUR);
    scene.link();
    scene.pass(20 * HOUR);
    assert_eq!(scene.kinds(), [(AlertKind::Overdue, What::Raised)]);
    let after = scene.told[0].0 - began;
    assert!((23 * HOUR..23 * HOUR + 60).contains(&after), "eight hours here, fifteen away: {after}");
    // A snapshot of its files is the end of it.
    scene.run(|_| Outcome::Aside);
    assert_eq!(scene.kinds().len(), 1);
    scene.run(|at| Outcome::Succeeded { at, took: 60 });
    assert_eq!(scene.kinds()[1..], [(AlertKind::Overdue, What::Cleared)]);
}

/// A check-in every 20 minutes or so is one stay.
#[test]
fn visits_close_to_each_other_count_whole() {
    let mut scene = Scene::on_friday();
    scene.pass(3 * DAY);
    scene.is_unwilling();
    let began = scene.now.wall;
    for i in 0..40 {
        scene.session += 1;
        scene.tell(Event::Contact(key(1), scene.session, Via::Visit, sighting()));
        scene.pass(20 * 60 + [-110, 100, 0][i % 3]);
    }
    assert_eq!(scene.kinds(), [(AlertKind::Overdue, What::Raised)]);
    let after = scene.told[0].0 - began;
    assert!((8 * HOUR..9 * HOUR).contains(&after), "{after}");
}

#[test]
fn an_open_alert_is_repeated_and_a_lost_one_named_though_nothing_is_heard() {
    let mut scene = Scene::on_friday();
    let last = scene.now.wall;
    scene.pass(3 * DAY);
    scene.link();
    scene.is_unwilling();
    scene.pass(9 * HOUR);
    scene.unlink();
    let seen = scene.now.wall;
    scene.pass(100 * DAY);
    let days: Vec<(i64, AlertKind, What)> =
        scene.told.iter().map(|(at, kind, what)| ((at - last) / DAY, *kind, *what)).collect();
    let (overdue, reminder) = (AlertKind::Overdue, What::Reminder);
    let lost = ((seen + 60 * DAY - last) / DAY, AlertKind::Lost, What::Raised);
    assert_eq!(
        days,
        [
            (3, overdue, What::Raised),
            (14, overdue, reminder),
            (21, overdue, reminder),
            (28, overdue, reminder),
            lost
        ]
    );
    // It is back: that is said, and that it is overdue still holds.
    scene.link();
    assert_eq!(scene.kinds().last(), Some(&(AlertKind::Lost, What::Cleared)));
}

#[test]
fn three_failures_in_a_row_are_failing_and_not_overdue() {
    let mut scene = Scene::on_friday();
    for i in 0..4 {
        assert_eq!(scene.told.len(), usize::from(i >= 3), "after {i} failures");
        scene.pass(2 * HOUR);
        scene.run(|_| Outcome::Failed { code: 7, why: "disk full".to_owned() });
    }
    assert_eq!(scene.kinds(), [(AlertKind::Failing, What::Raised)]);
    scene.pass(2 * HOUR);
    scene.run(|at| Outcome::Succeeded { at, took: 60 });
    assert_eq!(scene.kinds()[1..], [(AlertKind::Failing, What::Cleared)]);
}
