//! Nudges: to whom, how often, and how many at once.

use backhaul_schedule::Now;
use backhaul_schedule::due::Standing;
use backhaul_schedule::fleet::{Cause, NUDGE_TTL, Nudge};

use crate::world::{Key, Nudged, Person, Session, World};

impl World {
    pub(super) fn check_nudge(&mut self, key: &Key, nudge: Nudge, link: Option<Session>) {
        let now = self.now;
        let Some(person) = self.person(key).map(|person| person.clone()) else {
            return self.fail(25, "nudges a client that is gone".into());
        };
        if link.is_some() && person.link != link {
            self.fail(4, format!("nudges on {link:?}, the link is {:?}", person.link));
        }
        if person.nudge.is_some_and(|old| now.boot < old.at + NUDGE_TTL) {
            self.fail(12, format!("nudges twice: {:?}", person.nudge));
        }
        if person.holds() || person.asking.is_some() {
            self.fail(13, "nudges a client that runs or asks".into());
        }
        let asked_for = nudge.cause == Cause::Manual;
        if asked_for {
            let hour = person.nudges.iter().filter(|old| old.asked_for && old.at + 3_600 > now.boot).count();
            if !person.nudge_wanted && !person.manual {
                self.fail(12, "nudges for somebody who has not asked".into());
            }
            if hour >= 3 {
                self.fail(12, format!("nudges for the {}. time in an hour", hour + 1));
            }
        } else {
            self.check_unasked(&person, now);
        }
        let nudged = Nudged { id: nudge.id, at: now.boot, asked_for };
        self.change(key, |person| {
            person.nudge = Some(nudged);
            person.nudges.push(nudged);
            if asked_for {
                // One nudge for one wish, also of before a crash; what comes of it is wanted.
                (person.nudge_wanted, person.manual) = (false, true);
            }
        });
        let open = |person: &&Person| person.nudge.is_some_and(|open| now.boot < open.at + NUDGE_TTL);
        let open = self.people.iter().filter(open).count();
        // What can be let in within two minutes, when runs take five.
        let free = self.admission.slots.saturating_sub(self.held(|_| true));
        let most = free + (self.admission.slots * 2 / 5).max(1);
        if open > most {
            self.fail(12, format!("{open} nudges, {most} can be let in soon"));
        }
    }

    fn check_unasked(&mut self, person: &Person, now: Now) {
        if let Some(old) = person.nudges.iter().rev().find(|old| !old.asked_for)
            && now.boot < old.at + 600
        {
            self.fail(12, format!("nudges {} s after the last", now.boot - old.at));
        }
        if person.not_now.is_some_and(|until| until > now.wall) {
            self.fail(13, "nudges a client that does not want to".into());
        }
        if !matches!(person.standing(now), Standing::Due { .. } | Standing::Late { .. }) {
            self.fail(13, format!("nudges a client that is not due: {:?}", person.standing(now)));
        }
    }
}
