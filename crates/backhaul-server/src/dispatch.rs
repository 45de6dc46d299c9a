//! Between the scheduler, which decides, and the daemon, which acts: the fleet database read into events.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use backhaul_object::ids::ClientId;
use backhaul_proto::wire;
use backhaul_schedule::fleet::{Memory, NotNow, OpenRun, Place, Plan, Serving, Session, Trigger, Via, Why};
use backhaul_schedule::policy::Policies;
use backhaul_schedule::reach::{HasBattery, Mode, Nat, Sighting};
use backhaul_schedule::{Action, Event, Fleet as Schedule, Now};

use crate::clock;
use crate::error::ServerError;
use crate::fleet::{Client, ClientState, Fleet, LinkState, Shown};
use crate::policies::{self, Versions};

/// A wall clock that moves by more than this against the other one was set, in seconds.
const JUMP: i64 = 300;
/// A reason in which only a figure has changed is shown anew after so many seconds.
const SHOW_AGAIN: u64 = 60;

/// Finds when a client's newest snapshot was made.
pub type Newest<'n> = dyn Fn(ClientId) -> Option<u64> + 'n;

/// The scheduler with what it was last told.
pub struct Dispatch {
    schedule: Schedule,
    versions: Versions,
    told: BTreeMap<ClientId, Plan>,
    /// Sessions of runs, for the link that is shown.
    runs: BTreeMap<ClientId, LinkState>,
    shown: BTreeMap<ClientId, (Shown, std::mem::Discriminant<Why>, u64)>,
    /// Wall clock minus boot clock.
    offset: Option<i64>,
    /// The terms that linked clients were sent last.
    sent: BTreeMap<ClientId, wire::Terms>,
    disk_full: bool,
    draining: bool,
    /// Runs that people have asked for, as far as the scheduler was told.
    asked: HashSet<i64>,
}

/// What is to be written down.
#[derive(Debug)]
pub struct Unkept {
    memories: Vec<(ClientId, String)>,
    shown: Vec<(ClientId, Shown)>,
}

impl Unkept {
    /// Writes it down.
    ///
    /// # Errors
    /// The database.
    pub fn keep(&self, fleet: &mut Fleet) -> Result<(), ServerError> {
        if !self.memories.is_empty() {
            fleet.keep(&self.memories)?;
        }
        if self.shown.is_empty() { Ok(()) } else { fleet.show(&self.shown) }
    }
}

impl Dispatch {
    /// A scheduler that knows nobody yet.
    pub fn new() -> Self {
        let versions = Versions::default();
        Self {
            schedule: Schedule::new(versions.newest().admission.clone()),
            versions,
            told: BTreeMap::new(),
            runs: BTreeMap::new(),
            shown: BTreeMap::new(),
            offset: None,
            sent: BTreeMap::new(),
            disk_full: false,
            draining: false,
            asked: HashSet::new(),
        }
    }

    fn now() -> Now {
        Now { boot: clock::boot_ms() / 1_000, wall: clock::now() as i64 }
    }

    /// Tells the scheduler what happened; returns what is to be done.
    pub fn tell(&mut self, event: Event) -> Vec<Action> {
        self.schedule.step(Self::now(), event)
    }

    /// Lets time pass, and notices when the clock was set.
    pub fn tick(&mut self) -> Vec<Action> {
        let now = Self::now();
        let offset = now.wall - now.boot as i64;
        let before = *self.offset.get_or_insert(offset);
        if (offset - before).abs() <= JUMP {
            return self.tell(Event::Tick);
        }
        tracing::warn!("the clock was set by {} s: everything is planned anew", offset - before);
        self.offset = Some(offset);
        self.tell(Event::ClockJumped)
    }

    /// Notes whether the vault's disk is nearly full; says so if that is news.
    pub fn note_disk(&mut self, full: bool) -> Option<Vec<Action>> {
        if std::mem::replace(&mut self.disk_full, full) == full {
            return None;
        }
        Some(self.tell_serving())
    }

    /// True while nothing is started because the disk is nearly full.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full
    }

    /// The session of a client's standing link.
    pub fn linked_on(&self, client: ClientId) -> Option<Session> {
        self.schedule.linked_on(&client.0)
    }

    /// Reads what the command line has changed; `newest` is asked once for each client that is new here. What is to be
    /// done is never lost, whatever fails.
    ///
    /// # Errors
    /// The database, or a policy text that cannot be read.
    pub fn refresh(&mut self, fleet: &Fleet, newest: &Newest<'_>) -> (Vec<Action>, Result<(), ServerError>) {
        let mut actions = Vec::new();
        // Until everybody is known nobody is started: the first in the list are not the most urgent.
        let first = self.told.is_empty();
        if first {
            self.tell(Event::Serving(Serving::Draining));
        }
        let read = self.read(fleet, newest, &mut actions);
        if first {
            actions.extend(self.tell_serving());
        }
        (actions, read)
    }

    fn read(
        &mut self,
        fleet: &Fleet,
        newest: &Newest<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), ServerError> {
        let clients = fleet.clients()?;
        let active: Vec<&Client> =
            clients.iter().filter(|client| client.state == ClientState::Active).collect();
        if self.versions.refresh(fleet, &active, clock::now() as i64)? {
            let admission = self.versions.newest().admission.clone();
            actions.extend(self.tell(Event::Admission(Box::new(admission))));
        }
        let mut known = HashSet::new();
        for client in active {
            known.insert(client.id);
            actions.extend(self.learn(fleet, client, newest)?);
        }
        let gone: Vec<ClientId> = self.told.keys().filter(|id| !known.contains(id)).copied().collect();
        for id in gone {
            self.told.remove(&id);
            self.shown.remove(&id);
            self.sent.remove(&id);
            self.versions.removed(id);
            actions.extend(self.tell(Event::Removed(id.0)));
        }
        Ok(())
    }

    /// Takes what people have asked for.
    ///
    /// # Errors
    /// The database.
    pub fn take_requests(&mut self, fleet: &Fleet) -> Result<Vec<Action>, ServerError> {
        let mut actions = Vec::new();
        let queued = fleet.queued()?;
        self.asked.retain(|run| queued.iter().any(|(queued, _)| queued == run));
        for (run, client) in queued {
            if !self.told.contains_key(&client) {
                fleet.fail_queued(client, "the client has not joined, or was revoked", clock::now())?;
            } else if !self.runs.contains_key(&client) && self.asked.insert(run) {
                // One after the other: a run that was asked for while another goes on comes after that.
                actions.extend(self.tell(Event::Manual(client.0)));
            }
        }
        for client in fleet.take_wanted_nudges()? {
            actions.extend(self.tell(Event::NudgeWanted(client.0)));
        }
        Ok(actions)
    }

    /// A run of a client has ended, or it has come: what is still asked for is told again.
    pub fn ask_again(&mut self, fleet: &Fleet, client: ClientId) -> Vec<Action> {
        let queued = fleet.queued().unwrap_or_default();
        let Some((run, _)) = queued.into_iter().find(|(_, of)| *of == client) else { return Vec::new() };
        self.asked.remove(&run);
        self.take_requests(fleet).unwrap_or_default()
    }

    fn tell_serving(&mut self) -> Vec<Action> {
        let serving = match (self.draining, self.disk_full) {
            (true, _) => Serving::Draining,
            (false, true) => Serving::Full,
            (false, false) => Serving::Open,
        };
        self.tell(Event::Serving(serving))
    }

    /// Nothing new is started from now on.
    pub fn drain(&mut self) -> Vec<Action> {
        self.draining = true;
        self.tell_serving()
    }

    /// Tells the scheduler about a client, unless nothing about it is new.
    ///
    /// # Errors
    /// The database.
    pub fn learn(
        &mut self,
        fleet: &Fleet,
        client: &Client,
        newest: &Newest<'_>,
    ) -> Result<Vec<Action>, ServerError> {
        if client.state != ClientState::Active {
            return Ok(Vec::new());
        }
        let plan = policies::plan(&self.versions, client);
        let known = self.told.get(&client.id);
        if known == Some(&plan) {
            return Ok(Vec::new());
        }
        let is_new = known.is_none();
        let last_success = if is_new { newest(client.id).map(|at| at as i64) } else { None };
        self.told.insert(client.id, plan.clone());
        let mut actions = Vec::new();
        if is_new {
            self.versions.joined(client.id);
            let memory = fleet.memory(client.id)?.and_then(|text| serde_json::from_str::<Memory>(&text).ok());
            let open = if fleet.running(client.id)?.is_some() { OpenRun::Yes } else { OpenRun::No };
            if memory.is_some() || open == OpenRun::Yes {
                let memory = Box::new(memory.unwrap_or_default());
                actions.extend(self.tell(Event::Recalled(client.id.0, memory, open)));
            }
        }
        actions.extend(self.tell(Event::Known(client.id.0, Box::new(plan), last_success)));
        Ok(actions)
    }

    /// Something about a client is to be read anew, its newest snapshot above all.
    pub fn forget(&mut self, client: ClientId) {
        self.told.remove(&client);
    }

    /// Where a waiting client stands now.
    pub fn place(&self, client: ClientId) -> Option<Place> {
        self.schedule.place(Self::now(), &client.0)
    }

    /// What is to be said to a client about itself.
    pub fn verdict(&self, client: ClientId) -> wire::Verdict {
        let (now, key) = (Self::now(), &client.0);
        let lateness = self.schedule.lateness(now, key);
        wire::Verdict {
            due_in: self.schedule.due_in(now, key),
            stay: self.schedule.should_stay(key),
            late: lateness >= 1.0,
            lateness: (lateness.max(0.0) * 1_000.0) as u64,
        }
    }

    /// In how many seconds a client is due that has a new snapshot.
    pub fn due_after_success(&self, client: ClientId) -> u64 {
        self.schedule.due_after_success(Self::now(), &client.0)
    }

    /// True while the scheduler holds this session for the client's run.
    pub fn runs_on(&self, client: ClientId, session: Session) -> bool {
        self.schedule.runs_on(&client.0, session)
    }

    /// The terms of a client for its link, if they are not what was sent over it last.
    pub fn new_terms(&mut self, client: &Client) -> Option<wire::Terms> {
        let terms = self.terms(client);
        let before = self.sent.insert(client.id, terms);
        Some(terms).filter(|terms| before != Some(*terms))
    }

    /// The terms of a client with their version.
    pub fn terms(&self, client: &Client) -> wire::Terms {
        let (version, policies) = self.versions.of(client.id);
        policies::terms(version, &policies::policy_of(policies, client).agent)
    }

    /// The policies, by version.
    pub fn versions(&mut self) -> &mut Versions {
        &mut self.versions
    }

    /// The newest policies.
    pub fn policies(&self) -> &Policies {
        self.versions.newest()
    }

    /// Notes over which kind of connection a client's run goes.
    pub fn note_run(&mut self, client: ClientId, link: LinkState) {
        let _ =
            if link == LinkState::None { self.runs.remove(&client) } else { self.runs.insert(client, link) };
    }

    /// What has changed and is not written down: what is remembered, and what is shown.
    pub fn unkept(&mut self) -> Unkept {
        let mut memories = Vec::new();
        for key in self.schedule.take_dirty() {
            if let Some(Ok(text)) = self.schedule.memory(&key).map(serde_json::to_string) {
                memories.push((ClientId(key), text));
            }
        }
        let now = Self::now();
        let mut shown = Vec::new();
        for client in self.told.keys() {
            let why = self.schedule.explain(now, &client.0);
            let new = self.to_show(*client, &why, now);
            let kind = std::mem::discriminant(&why);
            let same = self.shown.get(client).is_some_and(|(before, before_kind, at)| {
                let again = now.boot < at + SHOW_AGAIN && *before_kind == kind;
                *before == new || again && alike(before, &new)
            });
            if !same {
                self.shown.insert(*client, (new.clone(), kind, now.boot));
                shown.push((*client, new));
            }
        }
        Unkept { memories, shown }
    }

    fn to_show(&self, client: ClientId, why: &Why, now: Now) -> Shown {
        let key = &client.0;
        let standing = if self.schedule.is_linked(key) { LinkState::Standing } else { LinkState::None };
        Shown {
            link: self.runs.get(&client).copied().unwrap_or(standing),
            mode: self.schedule.mode(key).map_or_else(String::new, |mode: Mode| mode.to_string()),
            obstacle: why.obstacle(),
            why: why.to_string(),
            next_at: self.schedule.starts_at(now, key),
        }
    }
}

/// The same but for a figure in the words, or a second.
fn alike(one: &Shown, other: &Shown) -> bool {
    let near = match (one.next_at, other.next_at) {
        (Some(one), Some(other)) => (one - other).abs() <= 60,
        (one, other) => one == other,
    };
    near && (one.link, &one.mode, one.obstacle) == (other.link, &other.mode, other.obstacle)
}

impl Default for Dispatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a server works with the database that is looked at: only then is true what it shows of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// One does.
    Truth,
    /// None does.
    Past,
}

/// A scheduler as the database would make it after a restart now, with the links and what the running server says, for
/// looking ahead. It starts nothing before it is told to.
///
/// # Errors
/// The database, or a policy text that cannot be read.
pub fn rebuilt(
    fleet: &Fleet,
    newest: &Newest<'_>,
    shows: Shows,
) -> Result<(Schedule, Now, Arc<[Client]>), ServerError> {
    let mut dispatch = Dispatch { draining: true, ..Dispatch::new() };
    dispatch.refresh(fleet, newest).1?;
    let (now, clients): (Now, Arc<[Client]>) = (Dispatch::now(), fleet.clients()?.into());
    for (_, client) in fleet.queued()? {
        dispatch.tell(Event::Manual(client.0));
    }
    for client in clients.iter().filter(|client| client.state == ClientState::Active) {
        if fleet.running(client.id)?.is_some() {
            dispatch.tell(Event::Request(client.id.0, 1, Trigger::Resume, None));
        }
        if shows == Shows::Truth {
            dispatch.believe(client, now);
        }
    }
    Ok((dispatch.schedule, now, clients))
}

impl Dispatch {
    /// Takes over what a running server shows of a client: its link, and that it waits though it is due.
    fn believe(&mut self, client: &Client, now: Now) {
        let key = client.id.0;
        if client.shown.link == LinkState::Standing {
            let (nat, power) = (Nat::Unknown, HasBattery::Unknown);
            self.tell(Event::Contact(key, 2, Via::Standing, Sighting { network: 0, nat, power }));
        }
        let due = self.schedule.starts_at(now, &key).is_some_and(|at| at <= now.wall);
        if let Some(until) = client.shown.next_at.filter(|at| due && *at > now.wall) {
            self.tell(Event::Unwilling(key, NotNow { reason: client.shown.why.clone(), until }));
        }
    }
}
