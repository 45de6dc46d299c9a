//! What people are told without asking, and how it reaches them.
//!
//! - [`config`]: `[alerts]` of the server's config; [`message`]: what is said, to whom, in which words;
//! - [`post`]: the channels together: [`mail`], [`webhook`], [`command`];
//! - [`retry`]: when a delivery that failed is tried again; [`courier`]: the task that delivers.
//!
//! Whoever decides calls [`Fleet::raise`](crate::fleet::Fleet::raise), `remind` or `clear`, and wakes the courier.
//! Everything else follows from the database: a crash loses no message, and may send one twice.

use std::fmt;
use std::str::FromStr;

use backhaul_object::ids::ClientId;

pub mod command;
pub mod config;
pub mod courier;
pub mod mail;
pub mod message;
pub mod post;
pub mod retry;
pub mod trouble;
pub mod webhook;

pub use backhaul_schedule::fleet::What;
pub use courier::Courier;

/// Why somebody has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// A client has no backup as new as its policy demands, because none could begin.
    Overdue,
    /// A client is there, and its backups fail.
    Failing,
    /// Most of a network group has gone silent at once.
    GroupSilent,
    /// A client has been silent for so long that nobody waits for it.
    Lost,
    /// Two machines come with the identity of one client.
    Clone,
    /// A rollout has stopped because too much failed.
    RolloutHalted,
    /// The vault's disk is full, or nearly.
    StorageFull,
    /// The vault is damaged, beyond what it can repair by itself.
    Damage,
    /// A run changed so much that nothing of its client is forgotten any more.
    Brake,
    /// What the server does for the vault by itself fails: by night, or the scrub.
    Upkeep,
}

impl AlertKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Overdue,
        Self::Failing,
        Self::GroupSilent,
        Self::Lost,
        Self::Clone,
        Self::RolloutHalted,
        Self::StorageFull,
        Self::Damage,
        Self::Brake,
        Self::Upkeep,
    ];

    /// The word in the database and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overdue => "overdue",
            Self::Failing => "failing",
            Self::GroupSilent => "group-silent",
            Self::Lost => "lost",
            Self::Clone => "clone",
            Self::RolloutHalted => "rollout-halted",
            Self::StorageFull => "storage-full",
            Self::Damage => "damage",
            Self::Brake => "brake",
            Self::Upkeep => "upkeep",
        }
    }

    /// True when the machine's owner can do something about it: an owner switches a machine on, and mends no
    /// backup that fails.
    pub fn concerns_owner(self) -> bool {
        matches!(self, Self::Overdue | Self::Lost)
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AlertKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no kind of alert"))
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Of which kind.
    pub kind: AlertKind,
    /// Which client, when it is about one.
    pub client: Option<ClientId>,
    /// Which network group, when it is about one.
    pub group: Option<String>,
    /// What is wrong, in a sentence.
    pub text: String,
    /// What stands in the way; empty when that is the text itself.
    pub obstacle: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_word() {
        for kind in AlertKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("late".parse::<AlertKind>().is_err());
    }
}
