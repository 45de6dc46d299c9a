//! Dials, and slots that are given away: never twice, never too many, never at the wrong time.

use backhaul_schedule::Event;
use backhaul_schedule::due::Standing;
use backhaul_schedule::fleet::Serving;

use crate::world::{Key, Session, Slot, World};

/// Which side a run begins on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Dial,
    Grant(Session),
}

impl World {
    pub(super) fn check_dial(&mut self, key: &Key, event: &Event) {
        let Some(person) = self.person(key) else {
            return self.fail(25, "dials a client that is gone".into());
        };
        let (holds, asks) = (person.holds(), person.asking);
        if holds {
            self.fail(1, format!("dials {key:?}, which has a slot"));
        }
        if asks.is_some() {
            self.fail(10, "dials a client that asks".into());
        }
        self.check_reaching(key);
        self.change(key, |person| {
            (person.slot, person.counted) =
                (Slot::Dialling, (person.plan.group.clone(), person.plan.vault.clone()))
        });
        self.check_start(key, By::Dial, event);
        self.check_in_flight();
    }

    /// A client that is there is not dialled.
    pub(super) fn check_reaching(&mut self, key: &Key) {
        let boot = self.now.boot;
        let Some(person) = self.person(key) else {
            return self.fail(25, "knocks at a client that is gone".into());
        };
        let (linked, address, knocked) = (person.link.is_some(), person.plan.has_address, person.knocked);
        let (vain, spaced) = (person.vain, person.spaced);
        person.came = false;
        if boot < spaced {
            self.fail(15, format!("dials {} s too soon after {vain} in vain", spaced - boot));
        }
        if linked {
            self.fail(15, "dials a client that is linked".into());
        }
        if !address {
            self.fail(15, "dials a client without an address".into());
        }
        if knocked {
            self.fail(15, "dials a client twice at once".into());
        }
    }

    pub(super) fn check_in_flight(&mut self) {
        let (flying, most) = (self.in_flight(), self.admission.dials);
        if flying > most {
            self.fail(15, format!("{flying} dials at once of {most}"));
        }
    }

    pub(super) fn cancelled(&mut self, key: &Key) {
        let Some(person) = self.person(key) else { return };
        if person.slot != Slot::Dialling && !person.knocked {
            self.fail(15, "cancels a dial that there is not".into());
        } else if person.slot == Slot::Dialling {
            (person.slot, person.takes_over) = (Slot::None, true);
        } else {
            person.knocked = false;
        }
    }

    pub(super) fn check_grant(&mut self, key: &Key, session: Session, event: &Event) {
        let Some(person) = self.person(key) else {
            return self.fail(25, "lets a client in that is gone".into());
        };
        let (asking, newest, slot) = (person.asking, person.newest, person.slot);
        if asking != Some(session) {
            self.fail(4, format!("grants on {session}, but {asking:?} asks"));
        }
        if session < newest && asking != Some(session) {
            self.fail(5, format!("grants on {session}, the newest is {newest}"));
        }
        let heard = self.now.boot;
        let resumes = match slot {
            Slot::None => self.person(key).is_some_and(|person| person.takes_over),
            Slot::Dialling => {
                self.fail(1, "lets a client in that is being dialled".into());
                false
            }
            Slot::Running { .. } | Slot::Interrupted { .. } => true,
        };
        self.change(key, |person| {
            if let Slot::Running { session: old, .. } = person.slot {
                person.ghosts.push(old);
            }
            (person.asking, person.slot) = (None, Slot::Running { session, heard });
        });
        if !resumes {
            self.change(key, |person| {
                person.counted = (person.plan.group.clone(), person.plan.vault.clone())
            });
            self.check_start(key, By::Grant(session), event);
        }
    }

    /// A new run begins: its slot has just been entered into the books.
    fn check_start(&mut self, key: &Key, by: By, event: &Event) {
        let now = self.now;
        let Some(person) = self.person(key).map(|person| person.clone()) else { return };
        let (group, vault) = (&person.counted.0, &person.counted.1);
        let all = self.held(|_| true);
        let of_group = self.held(|other| other.counted.0 == *group);
        let of_vault = self.held(|other| other.counted.1 == *vault);
        let caps = [self.admission.slots, self.group_cap(group), self.vault_cap(vault)];
        for ((held, cap), of) in
            [all, of_group, of_vault].into_iter().zip(caps).zip(["all", "group", "vault"])
        {
            if held > cap {
                self.fail(2, format!("{held} slots held of {cap} ({of}) after {by:?}"));
            }
        }
        if self.serving != Serving::Open {
            self.fail(2, format!("starts while {:?}", self.serving));
        }
        if person.manual || person.nudge_wanted || (person.resumes && by != By::Dial) {
            return;
        }
        if *event == Event::ClockJumped {
            self.fail(19, "starts because the clock jumped".into());
        }
        if person.plan.paused_until.is_some_and(|until| until > now.wall) {
            self.fail(9, "starts while it is paused".into());
        }
        match (person.standing(now), by) {
            (Standing::Waiting { .. }, _) => self.fail(9, "starts outside of its window".into()),
            (Standing::Protected { .. }, _) => self.fail(10, "starts a second run in a period".into()),
            (Standing::Early { .. }, By::Dial) => self.fail(10, "is dialled before its moment".into()),
            _ => {}
        }
    }
}
