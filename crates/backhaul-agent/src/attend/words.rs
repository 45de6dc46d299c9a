//! What happens to an agent, and what it is ordered to do.

use backhaul_schedule::policy::AgentTerms;

pub use crate::signals::network::Fingerprint;
pub use crate::signals::power::Supply;

/// What the server says about this client whenever it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// In how many seconds the next run is due.
    pub due_in: u64,
    /// Whether a link that stays is worth its packets.
    pub link: LinkWish,
    /// Whether the newest snapshot is too old.
    pub age: Age,
}

/// Whether the server wants the link to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkWish {
    /// It does.
    Stay,
    /// A check-in now and then does.
    Visit,
}

/// How old the newest snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Within the policy's limit.
    InTime,
    /// Beyond.
    Late,
}

/// Whether this machine is willing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It is.
    Open,
    /// It is not, and says why; seconds since 1970 until which that is sure.
    Shut {
        /// For people.
        reason: String,
        /// If it is known.
        until: Option<i64>,
    },
}

/// What made this machine ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// It has joined a network, was started, or woke.
    Join,
    /// Its time has come.
    Timer,
    /// It was nudged.
    Nudge,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The daemon runs.
    Started,
    /// The network has changed and settled; none when there is no way to the server.
    Network(Option<Fingerprint>),
    /// The machine slept.
    Woke,
    /// What keeps it from automatic runs, and from those that somebody asks for.
    Gates(Gate, Gate),
    /// The power supply has changed.
    Power(Supply),
    /// New terms from the server.
    Terms(Box<AgentTerms>),
    /// The dial was answered, and the server said this.
    Linked(Verdict),
    /// The server said this over the link.
    Told(Verdict),
    /// The link is gone.
    Unlinked,
    /// The dial was not answered, or nobody was let in.
    NotReached,
    /// The dial was answered: not before so many seconds.
    SentAway {
        /// Seconds.
        after: u64,
    },
    /// The server asks for a run.
    Nudged {
        /// The same number is the same nudge.
        id: u64,
        /// Somebody asked for it.
        by_hand: bool,
    },
    /// A run has begun that this machine did not order: the server dialled.
    Pulled,
    /// A run, or the wait for one, is over.
    Ended(End),
    /// Time has passed.
    Tick,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With a snapshot; the next is due in so many seconds.
    Done {
        /// Seconds.
        due_in: u64,
    },
    /// The server wants it to come back in so many seconds, with this ticket.
    Deferred {
        /// Seconds.
        after: u64,
        /// To be shown then.
        ticket: Vec<u8>,
    },
    /// There was none after all.
    Needless,
    /// It came to nothing; the ticket of a wait that was cut.
    Failed {
        /// To be shown next time.
        ticket: Vec<u8>,
    },
}

/// What a nudge is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NudgeReply {
    /// A run is asked for.
    Accepted,
    /// One is under way.
    Running,
    /// Not now.
    NotNow {
        /// For people.
        reason: String,
        /// Seconds since 1970.
        until: Option<i64>,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Dial the server, introduce yourself, hear the verdict.
    Dial,
    /// Close the link that stands.
    Hang,
    /// The path may be another: use a new socket, and see within 3 s whether the server is still there.
    Migrate,
    /// Ask for a run and carry it out.
    Push {
        /// Why.
        trigger: Trigger,
        /// From an earlier deferral.
        ticket: Vec<u8>,
    },
    /// Answer a nudge.
    Reply {
        /// Which.
        id: u64,
        /// How.
        reply: NudgeReply,
    },
    /// Tell the server over the link why a run that is due does not begin.
    Unwilling {
        /// For people.
        reason: String,
        /// Seconds since 1970.
        until: Option<i64>,
    },
}
