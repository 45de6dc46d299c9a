//! The ways of scheduling that are compared, and the ablations: hybrid with one part taken out.

use backhaul_schedule::policy::Initiator;
use backhaul_schedule::reach::Mode;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::case::{HOUR, MINUTE};
use crate::machine::Class;

/// A way of scheduling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
pub enum Arm {
    /// The server dials everybody; nobody comes by itself.
    ServerDial,
    /// Clients ask at fixed times, every 4 hours, and are turned away when no slot is free.
    #[value(name = "poll-4h")]
    Poll4h,
    /// The same every hour.
    #[value(name = "poll-60")]
    Poll60,
    /// The same every 20 minutes.
    #[value(name = "poll-20")]
    Poll20,
    /// Every hour, and when they come to a network.
    PollJoin,
    /// Desktops are dialled; laptops attend, ask, wait in the queue, are nudged; everybody has a safety net.
    Hybrid,
    /// The same, initiators found by the server (`auto`).
    Auto,
    /// Hybrid, every nudge and knock lost.
    NoNudge,
    /// Hybrid, agents not told of networks and of having slept.
    NoJoin,
    /// Hybrid, who would have to wait is sent away for 20 minutes without a ticket.
    NoQueue,
    /// Hybrid, order within a class by lot instead of perishable first.
    ByLot,
    /// Hybrid, laptops judged only when they connect.
    Edge,
}

/// What a machine's agent is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It only answers dials.
    Listens,
    /// It asks every so many ms; also when it joins a network?
    Polls(u64, OnJoin),
    /// The real machine.
    Attends,
}

/// Whether a poller also asks when it comes to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnJoin {
    /// It does.
    Asks,
    /// It waits for its next time.
    Waits,
}

impl Arm {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 12] = [
        Self::ServerDial,
        Self::Poll4h,
        Self::Poll60,
        Self::Poll20,
        Self::PollJoin,
        Self::Hybrid,
        Self::Auto,
        Self::NoNudge,
        Self::NoJoin,
        Self::NoQueue,
        Self::ByLot,
        Self::Edge,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServerDial => "server dials",
            Self::Poll4h => "poll 4 h",
            Self::Poll60 => "poll 60 min",
            Self::Poll20 => "poll 20 min",
            Self::PollJoin => "poll 60 min + join",
            Self::Hybrid => "hybrid",
            Self::Auto => "auto",
            Self::NoNudge => "hybrid − nudge",
            Self::NoJoin => "hybrid − join",
            Self::NoQueue => "hybrid − queue",
            Self::ByLot => "hybrid − perishable",
            Self::Edge => "hybrid, edge only",
        }
    }

    /// What agents do.
    pub fn manner(self) -> Manner {
        match self {
            Self::ServerDial => Manner::Listens,
            Self::Poll4h => Manner::Polls(4 * HOUR, OnJoin::Waits),
            Self::Poll60 => Manner::Polls(HOUR, OnJoin::Waits),
            Self::Poll20 => Manner::Polls(20 * MINUTE, OnJoin::Waits),
            Self::PollJoin => Manner::Polls(HOUR, OnJoin::Asks),
            _ => Manner::Attends,
        }
    }

    /// Who starts.
    pub fn initiator(self, class: Class) -> Initiator {
        match (self, class) {
            (Self::Auto, _) => Initiator::Auto,
            (Self::ServerDial, _) => Initiator::Fixed(Mode::Server),
            _ if self.manner() != Manner::Attends => Initiator::Fixed(Mode::Client),
            (_, Class::Desktop) => Initiator::Fixed(Mode::Server),
            (_, Class::Laptop) => Initiator::Fixed(Mode::Hybrid),
        }
    }
}
