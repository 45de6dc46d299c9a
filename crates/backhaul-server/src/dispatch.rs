//! Between the scheduler, which decides, and the daemon, which acts: the fleet database read into events.

use std::collections::{BTreeMap, HashSet};

use backhaul_object::ids::ClientId;
use backhaul_schedule::fleet::{Outcome, Plan};
use backhaul_schedule::policy::Policies;
use backhaul_schedule::{Action, Event, Fleet as Schedule, Now};

use crate::clock::{self, Stopwatch};
use crate::error::ServerError;
use crate::fleet::{Client, ClientState, Fleet, Initiator};
use crate::policies;

/// Seconds after which a client that should have been dialled comes by itself.
const SAFETY_NET: u64 = 3_600;

/// The scheduler with what it was last told.
pub struct Dispatch {
    schedule: Schedule,
    since: Stopwatch,
    text: String,
    policies: Policies,
    told: BTreeMap<ClientId, Plan>,
}

impl Dispatch {
    /// A scheduler that knows nobody yet.
    pub fn new() -> Self {
        let policies = Policies::default();
        Self {
            schedule: Schedule::new(policies.slots),
            since: Stopwatch::start(),
            text: String::new(),
            policies,
            told: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        Now { boot: self.since.elapsed().as_secs(), wall: clock::now() as i64 }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.schedule.step(self.now(), event)
    }

    /// Reads what the command line has changed; `newest` is asked once for each client that is new here.
    ///
    /// # Errors
    /// The database, or a policy text that cannot be read.
    pub fn refresh(
        &mut self,
        fleet: &Fleet,
        newest: &dyn Fn(ClientId) -> Option<u64>,
    ) -> Result<Vec<Action>, ServerError> {
        let text = fleet.policy_text()?;
        let mut actions = Vec::new();
        if text != self.text {
            self.policies = policies::read(&text)?;
            self.text = text;
            actions.extend(self.step(Event::Slots(self.policies.slots)));
        }
        let mut seen = HashSet::new();
        let clients = fleet.clients()?;
        for client in clients.iter().filter(|client| client.state == ClientState::Active) {
            seen.insert(client.id);
            actions.extend(self.learn(client, newest));
        }
        let gone: Vec<ClientId> = self.told.keys().filter(|id| !seen.contains(id)).copied().collect();
        for id in gone {
            self.told.remove(&id);
            actions.extend(self.step(Event::Removed(id.0)));
        }
        for client in fleet.queued()? {
            if !self.told.contains_key(&client) {
                fleet.fail_queued(client, "the client has not joined, or was revoked", clock::now())?;
            }
            actions.extend(self.step(Event::Manual(client.0)));
        }
        actions.extend(self.step(Event::Tick));
        for client in clients.iter().filter(|client| self.told.contains_key(&client.id)) {
            let why = self.schedule.explain(self.now(), &client.id.0);
            if why != client.why {
                fleet.explain(client.id, &why)?;
            }
        }
        Ok(actions)
    }

    /// Tells the scheduler about a client, unless nothing about it is new.
    fn learn(&mut self, client: &Client, newest: &dyn Fn(ClientId) -> Option<u64>) -> Vec<Action> {
        let Some(policy) = policies::of(&self.policies, client).cloned() else { return Vec::new() };
        if client.state != ClientState::Active {
            return Vec::new();
        }
        let pulls = client.initiator == Initiator::Server && client.address.is_some();
        let plan = Plan { policy, pulls };
        if self.told.get(&client.id) == Some(&plan) {
            return Vec::new();
        }
        let last_success = match self.told.contains_key(&client.id) {
            true => None,
            false => newest(client.id).map(|at| at as i64),
        };
        self.told.insert(client.id, plan.clone());
        self.step(Event::Known { client: client.id.0, plan, last_success })
    }

    /// A client wants to push: let in, or told when to come back.
    pub fn ask(
        &mut self,
        client: &Client,
        newest: &dyn Fn(ClientId) -> Option<u64>,
    ) -> (Result<(), u64>, Vec<Action>) {
        let mut actions = self.learn(client, newest);
        let mut answer = Ok(());
        for action in self.step(Event::Asked(client.id.0)) {
            match action {
                Action::Defer { after, .. } => answer = Err(after),
                Action::Grant(_) => {}
                dial @ Action::Dial(_) => actions.push(dial),
            }
        }
        (answer, actions)
    }

    /// A run is over.
    pub fn ended(&mut self, client: ClientId, outcome: Outcome) -> Vec<Action> {
        self.step(Event::Ended { client: client.0, outcome })
    }

    /// In how many seconds a client that pushes should come; 0 when it is due.
    pub fn due_in(
        &mut self,
        client: &Client,
        newest: &dyn Fn(ClientId) -> Option<u64>,
    ) -> (u64, Vec<Action>) {
        let (actions, now) = (self.learn(client, newest), self.now());
        let next = self.schedule.next(now, &client.id.0).unwrap_or(now.wall);
        let wait = u64::try_from(next - now.wall).unwrap_or(0);
        let wait = match self.told.get(&client.id) {
            // The server dials it: its own coming is the safety net.
            Some(plan) if plan.pulls => wait + SAFETY_NET,
            _ => wait,
        };
        (wait, actions)
    }
}

impl Default for Dispatch {
    fn default() -> Self {
        Self::new()
    }
}
