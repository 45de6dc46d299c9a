//! The fleet's state, and the one function that changes it: events in, actions out.
//!
//! Whatever happens to a client, it is judged anew from its state alone ([`Fleet::settle`]): taken out of the queue, the
//! nudges and the timers, and put where it belongs now. So no order of events can lose a wake-up. Then whoever may
//! start is started ([`Fleet::fill`]). [`take`] has the events, [`client`] what a client wants, [`queue`] who is next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::Now;
use crate::policy::{Admission, Group, Initiator, Policy};
use crate::reach::{DialResult, Remedy, Sighting};

mod calendar;
mod client;
mod explain;
mod fill;
mod groups;
mod known;
mod memory;
mod queue;
mod refuse;
mod settle;
mod take;
pub mod watch;

use calendar::Calendar;
use client::Client;
pub use client::offset;
pub use explain::{Obstacle, Why};
use groups::Groups;
pub use memory::{Memory, NotNow};
pub use queue::Class;
use queue::{Queue, Rank};
pub use watch::{Alert, AlertKind, Subject, What};

/// A client, by the 16 bytes of its id. The server knows what they mean.
pub type ClientKey = [u8; 16];
/// A connection, by a number that only grows.
pub type Session = u64;

/// How long a lost connection may take to come back while its run keeps its slot, in seconds. Agents look for their
/// server for 180 s.
pub const RESUME_GRACE: u64 = 200;
/// A run of which nothing is heard for so long has lost its slot, in seconds.
pub const LEASE: u64 = 600;
/// How long a nudge may be answered, in seconds.
pub const NUDGE_TTL: u64 = 300;

/// What the server knows about a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// When it is to be backed up.
    pub policy: Arc<Policy>,
    /// Who starts.
    pub initiator: Initiator,
    /// The server knows where its agent listens.
    pub has_address: bool,
    /// Its network.
    pub group: Group,
    /// Its vault's name.
    pub vault: Arc<str>,
    /// No automatic run before then, seconds since 1970.
    pub paused_until: Option<i64>,
    /// When it was added, seconds since 1970.
    pub added: i64,
}

/// What made a client ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// It has come to a network.
    Join,
    /// Its own time has come.
    Timer,
    /// Somebody there asked for it.
    Manual,
    /// It was nudged.
    Nudge,
    /// Its connection was lost in a run.
    Resume,
}

impl Trigger {
    /// What has brought a run about.
    fn remedy(self) -> Remedy {
        match self {
            Self::Nudge => Remedy::Nudge,
            Self::Join | Self::Timer | Self::Manual | Self::Resume => Remedy::CheckIn,
        }
    }
}

/// Whether a contact stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// On a standing link.
    Standing,
    /// For one question.
    Visit,
}

/// Why a client is nudged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its time has come.
    Due,
    /// Its newest snapshot is too old.
    Overdue,
    /// Somebody asked for it.
    Manual,
}

/// What a nudged client answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NudgeAnswer {
    /// It will ask.
    Accepted,
    /// It is doing so already, or does not see why.
    Needless,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With a snapshot.
    Succeeded {
        /// Seconds since 1970.
        at: i64,
        /// Seconds that it took.
        took: u64,
    },
    /// With one that is not of its files: these are as old as before.
    Aside,
    /// Without: the code and the words of its end.
    Failed {
        /// See the protocol's end codes.
        code: u32,
        /// For people.
        why: String,
    },
    /// Somebody on the client has ended it: nothing is wrong.
    CutShort,
    /// It had not begun: the agent does not want to now.
    NotNow(NotNow),
}

/// Whether the vaults can take more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// They can.
    Open,
    /// Their disk is nearly full: nothing new is started.
    Full,
    /// The server is stopping.
    Draining,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A client is there, or something about it has changed. Seconds since 1970 of its newest snapshot.
    Known(ClientKey, Box<Plan>, Option<i64>),
    /// What is kept of it from before a restart; a run that was open keeps its slot for [`RESUME_GRACE`]. It had better
    /// come before the client is [`Event::Known`], so that nothing is told twice, and while [`Event::Serving`] says that
    /// nothing starts, so that no other takes the slot.
    Recalled(ClientKey, Box<Memory>, OpenRun),
    /// A client is gone.
    Removed(ClientKey),
    /// Bounds from now on.
    Admission(Box<Admission>),
    /// Somebody wants this one backed up now.
    Manual(ClientKey),
    /// Somebody wants this one to be nudged now.
    NudgeWanted(ClientKey),
    /// A client was heard of on a connection.
    Contact(ClientKey, Session, Via, Sighting),
    /// A connection is gone: standing, waiting or running.
    LinkLost(ClientKey, Session),
    /// A client asks on a connection for a run; the time on its ticket, if it has one.
    Request(ClientKey, Session, Trigger, Option<i64>),
    /// It has answered a nudge.
    NudgeAnswered(ClientKey, u64, NudgeAnswer),
    /// An agent does not want to now.
    Unwilling(ClientKey, NotNow),
    /// What became of a dial or knock; the connection, if it was answered.
    Dialled(ClientKey, DialResult, Option<Session>),
    /// A run is going on.
    Progress(ClientKey, Session),
    /// A run is over.
    Ended(ClientKey, Session, Outcome),
    /// Whether new runs are possible.
    Serving(Serving),
    /// The wall clock was set.
    ClockJumped,
    /// Time has passed.
    Tick,
}

/// Whether a run was open when the server stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenRun {
    /// One was.
    Yes,
    /// None was.
    No,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Dial this client and back it up.
    Dial(ClientKey),
    /// Dial this client and nudge it.
    Knock(ClientKey, Nudge),
    /// Give a dial up: the client has come by itself.
    CancelDial(ClientKey),
    /// Let the client that asks on this connection begin, or go on.
    Grant(ClientKey, Session),
    /// Let it wait on its connection.
    Wait(ClientKey, Session, Place),
    /// Tell it when to come back.
    Defer(ClientKey, Session, Deferral),
    /// Say this over its standing link.
    Nudge(ClientKey, Session, Nudge),
    /// The run whose connection was lost has failed: it did not come back in time.
    Expire(ClientKey),
    /// End this connection.
    Close(ClientKey, Session, CloseReason),
    /// Tell people.
    Alert(Alert),
}

/// A request to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nudge {
    /// Its number: a second one with it is the same nudge.
    pub id: u64,
    /// Why.
    pub cause: Cause,
    /// Seconds for which it is good.
    pub ttl: u64,
}

/// A place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// How many are before it, at least.
    pub position: usize,
    /// Seconds until it is likely to start.
    pub eta: u64,
    /// Goes into the ticket: since when it waits, seconds since 1970.
    pub since: i64,
    /// For people.
    pub why: Why,
}

/// When to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// In so many seconds.
    pub after: u64,
    /// Goes into the ticket; none when there is no place to keep.
    pub since: Option<i64>,
    /// For people.
    pub why: Why,
}

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// A newer one of the same client takes its place.
    Superseded,
    /// Nothing was heard of its run for [`LEASE`].
    Stalled,
    /// Its client is paused until then, seconds since 1970.
    Paused {
        /// The end of the pause.
        until: i64,
    },
}

/// A timer's owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Client(ClientKey),
    Group(Group),
    /// The first tick after a jump of the clock.
    Calm,
}

/// All clients, and what they share.
#[derive(Debug, Clone)]
pub struct Fleet {
    clients: BTreeMap<ClientKey, Client>,
    timers: BTreeSet<(u64, Timer)>,
    queue: Queue,
    groups: Groups,
    calendar: Calendar,
    admission: Admission,
    serving: Serving,
    /// Clients to nudge, and to knock at, when there is room for their runs.
    nudges: BTreeSet<(Rank, ClientKey)>,
    knocks: BTreeSet<(Rank, ClientKey)>,
    /// Nudges that may still bring a run.
    open_nudges: usize,
    next_nudge: u64,
    /// Dials and knocks under way.
    dialling: BTreeSet<ClientKey>,
    /// Retries that may be made, in tenths.
    retry_budget: u64,
    budget_at: u64,
    /// Mean length of a run, in seconds.
    run_length: u64,
    /// Nothing is started before then: the clock has just jumped.
    calm_at: Option<u64>,
    /// What was kept of clients that are not known yet.
    recalled: BTreeMap<ClientKey, (Box<Memory>, OpenRun)>,
    /// Clients whose [`Memory`] has changed.
    dirty: BTreeSet<ClientKey>,
    judged: u64,
}

impl Fleet {
    /// An empty fleet with these bounds.
    pub fn new(admission: Admission) -> Self {
        let mut queue = Queue::default();
        queue.set_admission(admission.clone());
        Self {
            clients: BTreeMap::new(),
            timers: BTreeSet::new(),
            queue,
            groups: Groups::default(),
            calendar: Calendar::default(),
            admission,
            serving: Serving::Open,
            nudges: BTreeSet::new(),
            knocks: BTreeSet::new(),
            open_nudges: 0,
            next_nudge: 1,
            dialling: BTreeSet::new(),
            retry_budget: fill::RETRIES_MAX,
            budget_at: 0,
            run_length: 300,
            calm_at: None,
            recalled: BTreeMap::new(),
            dirty: BTreeSet::new(),
            judged: 0,
        }
    }

    /// Takes an event; returns what is to be done now.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.run_timers(now, &mut out);
        let answer = self.take(now, event, &mut out);
        self.fill(now, &mut out);
        if let Some(client) = answer {
            self.answer(now, client, &mut out);
        }
        out
    }

    /// When the next [`Event::Tick`] is needed at the latest, in seconds since boot.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Clients whose [`Memory`] has changed since this was last asked.
    pub fn take_dirty(&mut self) -> BTreeSet<ClientKey> {
        std::mem::take(&mut self.dirty)
    }

    /// How often a client was judged anew: what the events so far have cost.
    pub fn judged(&self) -> u64 {
        self.judged
    }

    /// What is to be kept of a client.
    pub fn memory(&self, client: &ClientKey) -> Option<&Memory> {
        self.clients.get(client).map(|client| &client.memory)
    }

    /// Runs and dials for them under way.
    pub fn running(&self) -> usize {
        self.queue.held()
    }

    /// Clients that wait on an open connection.
    pub fn waiting(&self) -> usize {
        self.queue.asking()
    }

    /// All clients.
    pub fn clients(&self) -> impl Iterator<Item = &ClientKey> {
        self.clients.keys()
    }
}
