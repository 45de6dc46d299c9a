//! The fleet's state, and the one function that changes it: events in, actions out.

use std::collections::BTreeMap;

use crate::Now;
use crate::due::{Standing, standing};
use crate::policy::Policy;

/// A client, by the 16 bytes of its id. The server knows what they mean.
pub type ClientKey = [u8; 16];

/// First pause after a failed dial, and the longest: it doubles in between.
const BACKOFF: std::ops::RangeInclusive<u64> = 30..=7_200;
/// Pause after a run that failed once it had begun.
const RETRY: u64 = 600;

/// What the server knows about a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// When it is to be backed up.
    pub policy: Policy,
    /// The server starts its runs, and has an address to dial.
    pub pulls: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A client is there, or something about it has changed. Seconds since 1970 of its newest snapshot.
    Known {
        /// Who.
        client: ClientKey,
        /// What is to be done.
        plan: Plan,
        /// Its newest snapshot.
        last_success: Option<i64>,
    },
    /// A client is gone.
    Removed(ClientKey),
    /// So many runs at once from now on.
    Slots(usize),
    /// Somebody wants this one backed up now.
    Manual(ClientKey),
    /// A client has dialled in to back up.
    Asked(ClientKey),
    /// A run that was started, or granted, is over.
    Ended {
        /// Whose.
        client: ClientKey,
        /// How.
        outcome: Outcome,
    },
    /// Time has passed.
    Tick,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a snapshot, at this second since 1970.
    Succeeded(i64),
    /// Nobody answered the dial.
    NotReached,
    /// It had begun.
    Failed,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Dial this client and back it up.
    Dial(ClientKey),
    /// Let the client that has asked go on.
    Grant(ClientKey),
    /// Tell the client that has asked to come back.
    Defer {
        /// Who.
        client: ClientKey,
        /// In so many seconds.
        after: u64,
    },
}

#[derive(Debug, Clone)]
struct Client {
    plan: Plan,
    last_success: Option<i64>,
    running: bool,
    manual: bool,
    /// Failures in a row, and when (since boot) the next try may be.
    failures: u32,
    not_before: u64,
}

/// Why one is started before another: the order of the variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Manual,
    Late,
    Due,
}

/// All clients, and the slots they share.
#[derive(Debug, Clone)]
pub struct Fleet {
    clients: BTreeMap<ClientKey, Client>,
    slots: usize,
}

impl Fleet {
    /// An empty fleet with so many runs at once.
    pub fn new(slots: usize) -> Self {
        Self { clients: BTreeMap::new(), slots }
    }

    /// Takes an event; returns what is to be done now.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Known { client, plan, last_success } => self.on_known(client, plan, last_success),
            Event::Removed(client) => drop(self.clients.remove(&client)),
            Event::Slots(slots) => self.slots = slots,
            Event::Manual(client) => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.manual = true;
                    client.not_before = 0;
                }
            }
            Event::Asked(client) => actions.extend(self.on_asked(client)),
            Event::Ended { client, outcome } => self.on_ended(now, client, outcome),
            Event::Tick => {}
        }
        self.fill(now, &mut actions);
        actions
    }

    fn on_known(&mut self, key: ClientKey, plan: Plan, last_success: Option<i64>) {
        match self.clients.get_mut(&key) {
            Some(client) => {
                client.plan = plan;
                // What is known is never forgotten because of an older reading.
                client.last_success = client.last_success.max(last_success);
            }
            None => {
                let (running, manual, failures, not_before) = (false, false, 0, 0);
                let client = Client { plan, last_success, running, manual, failures, not_before };
                self.clients.insert(key, client);
            }
        }
    }

    /// A client's new session takes the place of its old one; a first one needs a slot.
    fn on_asked(&mut self, key: ClientKey) -> Option<Action> {
        let free = self.free();
        let client = self.clients.get_mut(&key)?;
        if !client.running && free == 0 {
            let waiting = self.clients.values().filter(|client| client.running).count() as u64;
            return Some(Action::Defer { client: key, after: 30 + 10 * waiting.min(57) });
        }
        client.running = true;
        Some(Action::Grant(key))
    }

    fn on_ended(&mut self, now: Now, key: ClientKey, outcome: Outcome) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        client.running = false;
        match outcome {
            Outcome::Succeeded(at) => {
                client.last_success = client.last_success.max(Some(at));
                (client.failures, client.not_before, client.manual) = (0, 0, false);
            }
            Outcome::NotReached | Outcome::Failed => {
                let doubled = BACKOFF.start() << client.failures.min(16);
                let pause = if outcome == Outcome::Failed { doubled.max(RETRY) } else { doubled };
                client.failures = client.failures.saturating_add(1);
                client.not_before = now.boot + pause.min(*BACKOFF.end());
                client.manual = false;
            }
        }
    }

    fn free(&self) -> usize {
        self.slots.saturating_sub(self.clients.values().filter(|client| client.running).count())
    }

    /// Starts whom it can, most urgent first.
    fn fill(&mut self, now: Now, actions: &mut Vec<Action>) {
        let mut free = self.free();
        if free == 0 {
            return;
        }
        let mut eligible: Vec<(Class, Option<i64>, ClientKey)> = self
            .clients
            .iter()
            .filter_map(|(key, client)| Some((client.class(now, key)?, client.last_success, *key)))
            .collect();
        eligible.sort();
        for (_, _, key) in eligible {
            if free == 0 {
                return;
            }
            if let Some(client) = self.clients.get_mut(&key) {
                client.running = true;
                free -= 1;
                actions.push(Action::Dial(key));
            }
        }
    }

    /// Why a client is not running now, or that it is, in words.
    pub fn explain(&self, now: Now, key: &ClientKey) -> String {
        let Some(client) = self.clients.get(key) else { return "not known".to_owned() };
        if client.running {
            return "running".to_owned();
        }
        if now.boot < client.not_before {
            let times = if client.failures == 1 { "once" } else { "several times" };
            return format!("tried {times} in vain, waiting before the next try");
        }
        let standing = standing(&client.plan.policy, offset(key), client.last_success, now.wall);
        match standing {
            _ if client.manual => "waiting for a slot".to_owned(),
            Standing::Protected { .. } => "has its snapshot of this period".to_owned(),
            Standing::Waiting { .. } => "waiting for its time".to_owned(),
            Standing::Due | Standing::Late if client.plan.pulls => "waiting for a slot".to_owned(),
            Standing::Due | Standing::Late => "absent: it pushes, and has not come".to_owned(),
        }
    }

    /// When a client may start next, in seconds since 1970: now if it is due.
    pub fn next(&self, now: Now, key: &ClientKey) -> Option<i64> {
        let client = self.clients.get(key)?;
        let wait = client.not_before.saturating_sub(now.boot) as i64;
        let at = match standing(&client.plan.policy, offset(key), client.last_success, now.wall) {
            Standing::Protected { next } | Standing::Waiting { next } => next,
            Standing::Due | Standing::Late => now.wall,
        };
        Some(at.max(now.wall + wait))
    }
}

impl Client {
    /// How urgently the server should dial it now, if at all.
    fn class(&self, now: Now, key: &ClientKey) -> Option<Class> {
        if self.running || now.boot < self.not_before {
            return None;
        }
        if self.manual {
            return Some(Class::Manual);
        }
        if !self.plan.pulls {
            return None;
        }
        match standing(&self.plan.policy, offset(key), self.last_success, now.wall) {
            Standing::Late => Some(Class::Late),
            Standing::Due => Some(Class::Due),
            Standing::Protected { .. } | Standing::Waiting { .. } => None,
        }
    }
}

/// A client's own moment within the spread: ids are random, so their bytes are as good as a hash.
fn offset(key: &ClientKey) -> u64 {
    let mut head = [0; 8];
    head.copy_from_slice(&key[..8]);
    u64::from_le_bytes(head)
}
