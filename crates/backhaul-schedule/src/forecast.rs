//! What will start when, and why: the fleet itself, run ahead of time with clients that behave as they usually do.

use std::collections::BTreeMap;

use crate::Now;
use crate::fleet::{Action, Class, ClientKey, Event, Fleet, LEASE, Outcome, Serving, Session, Trigger, Why};
use crate::reach::DialResult;

/// Steps of one forecast at most.
const STEPS_MAX: usize = 1_000_000;
/// Length of a run where none was measured yet, in seconds.
const RUN: u64 = 300;
/// How often something is heard of a run that goes on, in seconds.
const BEAT: u64 = LEASE / 2;

/// How a run will begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The server dials at this moment.
    Dial,
    /// The client asks at this moment: it is linked, or comes by itself.
    Ask,
    /// The client pushes and is not here: from this moment on it starts when it appears.
    WhenHere,
}

/// One run to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Whose.
    pub client: ClientKey,
    /// Seconds since 1970.
    pub at: i64,
    /// When it is likely to be over.
    pub until: i64,
    /// How it begins.
    pub start: Start,
    /// How urgent it is then.
    pub class: Class,
}

/// Runs the fleet ahead to a moment. Dials are answered, clients that push come when they are due, runs take as long
/// as each client's usually do; a server that starts nothing now begins to.
pub fn forecast(fleet: &Fleet, now: Now, until: i64) -> Vec<Planned> {
    let mut ahead = Ahead {
        fleet: fleet.clone(),
        now,
        session: Session::MAX / 2,
        runs: BTreeMap::new(),
        plan: Vec::new(),
    };
    ahead.under_way();
    ahead.absent(until);
    ahead.step(Event::Serving(Serving::Open));
    ahead.come();
    for _ in 0..STEPS_MAX {
        let Some(at) = ahead.next() else { break };
        let passed = at.saturating_sub(ahead.now.boot).max(1);
        ahead.now = Now { boot: ahead.now.boot + passed, wall: ahead.now.wall + passed as i64 };
        if ahead.now.wall > until {
            break;
        }
        ahead.happen();
    }
    ahead.plan.sort_by_key(|planned| (planned.at, planned.client));
    ahead.plan
}

struct Ahead {
    fleet: Fleet,
    now: Now,
    session: Session,
    /// Runs that are going on, by when they are heard of next.
    runs: BTreeMap<(u64, ClientKey), Run>,
    plan: Vec<Planned>,
}

/// A run that is going on.
#[derive(Clone, Copy)]
struct Run {
    session: Session,
    /// When it ends, in seconds since boot.
    end: u64,
}

impl Ahead {
    fn next(&self) -> Option<u64> {
        let heard = self.runs.keys().next().map(|(at, _)| *at);
        [heard, self.fleet.next_deadline()].into_iter().flatten().min()
    }

    fn happen(&mut self) {
        while let Some(first) = self.runs.first_entry().filter(|first| first.key().0 <= self.now.boot) {
            let ((_, client), Run { session, end }) = first.remove_entry();
            if end > self.now.boot {
                self.step(Event::Progress(client, session));
                self.goes_on(client, Run { session, end });
            } else {
                let took = self.usual(&client);
                self.step(Event::Ended(client, session, Outcome::Succeeded { at: self.now.wall, took }));
            }
        }
        self.step(Event::Tick);
        self.come();
    }

    /// What runs already ends like what begins now: nobody says how far it is.
    fn under_way(&mut self) {
        let runs: Vec<_> = self
            .fleet
            .clients()
            .filter_map(|client| Some((*client, self.fleet.running_on(client)?)))
            .collect();
        for (client, session) in runs {
            let end = self.now.boot + self.usual(&client);
            self.goes_on(client, Run { session, end });
        }
    }

    /// Clients that are not here and push: all that can be said is from when on they would be let in.
    fn absent(&mut self, until: i64) {
        let away: Vec<ClientKey> =
            self.fleet.clients().filter(|client| self.is_away(client)).copied().collect();
        for client in away {
            let took = self.usual(&client) as i64;
            let (at, class) = match self.fleet.running_on(&client) {
                // The one after that.
                Some(_) => {
                    let due_in = self.fleet.due_after_success(self.now, &client) as i64;
                    (self.now.wall.saturating_add(took).saturating_add(due_in), Class::Due)
                }
                None => {
                    let Some(at) = self.fleet.starts_at(self.now, &client) else { continue };
                    (at, self.fleet.class_at(at, &client))
                }
            };
            if at <= until {
                self.plan.push(Planned { client, at, until: at + took, start: Start::WhenHere, class });
            }
        }
    }

    fn is_away(&self, client: &ClientKey) -> bool {
        !self.fleet.is_dialled(client) && !self.fleet.is_linked(client)
    }

    /// Clients with a link ask when they are due.
    fn come(&mut self) {
        let due: Vec<ClientKey> = self
            .fleet
            .clients()
            .filter(|client| self.fleet.is_linked(client) && self.fleet.due_in(self.now, client) == 0)
            .filter(|client| {
                !matches!(self.fleet.explain(self.now, client), Why::Running | Why::Slots { .. })
            })
            .copied()
            .collect();
        for client in due {
            self.session += 1;
            self.step(Event::Request(client, self.session, Trigger::Timer, None));
        }
    }

    fn usual(&self, client: &ClientKey) -> u64 {
        self.fleet.memory(client).and_then(|memory| memory.reach.duration()).unwrap_or(RUN)
    }

    fn step(&mut self, event: Event) {
        for action in self.fleet.step(self.now, event) {
            match action {
                Action::Dial(client) => {
                    self.session += 1;
                    let session = self.session;
                    self.begin(client, session, Start::Dial);
                    self.step(Event::Dialled(client, DialResult::Answered, Some(session)));
                }
                Action::Grant(client, session) => self.begin(client, session, Start::Ask),
                Action::Knock(client, _) => self.step(Event::Dialled(client, DialResult::Silent, None)),
                _ => {}
            }
        }
    }

    fn begin(&mut self, client: ClientKey, session: Session, start: Start) {
        let took = self.usual(&client);
        let class = self.fleet.class_at(self.now.wall, &client);
        let at = self.now.wall;
        self.plan.push(Planned { client, at, until: at + took as i64, start, class });
        self.goes_on(client, Run { session, end: self.now.boot + took });
    }

    fn goes_on(&mut self, client: ClientKey, run: Run) {
        self.runs.insert((run.end.min(self.now.boot + BEAT), client), run);
    }
}
