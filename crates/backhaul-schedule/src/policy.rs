//! Policies: what an administrator writes down.
//!
//! One TOML file, all of it optional; docs/scheduling.md has an example with every key, schemas/config/policy.json
//! the shape. [`file`] is the text as it is written, [`read`] turns it into what is here and names every
//! mistake, [`lint`] says what is allowed and still unwise.

use std::collections::BTreeMap;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::reach::Mode;
use crate::retention::Keep;
use crate::rollout::RolloutRules;

mod file;
mod keep;
pub mod lint;
pub mod network;
pub mod read;
pub mod units;

pub use network::{Group, Prefix};
pub use read::parse;

/// Backups at once unless the file says otherwise.
pub const DEFAULT_SLOTS: usize = 4;
/// The policy of clients that have no other.
pub const DEFAULT_POLICY: &str = "default";
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// Why a policy file is refused. Nothing of it is then in force.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Not TOML, or a key that is not known: it is named, with its line.
    #[error("{0}")]
    Syntax(String),
    /// A value that makes no sense.
    #[error("{place}: {key} = {value:?}: {why}")]
    Value {
        /// In which table.
        place: String,
        /// Which key.
        key: &'static str,
        /// As written.
        value: String,
        /// Why not.
        why: &'static str,
    },
}

/// The time of day at which runs may start.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Opens.
    pub from: Time,
    /// Closes; before `from` when it goes over midnight.
    pub to: Time,
    /// Whose time of day.
    pub zone: TimeZone,
    /// True when the file says `tz = "client"`: `zone` is then a stand-in until the client has said where it is.
    pub of_client: bool,
}

impl Window {
    /// How long it is open in a day, in seconds.
    pub fn length(&self) -> i64 {
        let second = |time: Time| i64::from(time.hour()) * HOUR + i64::from(time.minute()) * 60;
        match (second(self.to) - second(self.from)).rem_euclid(DAY) {
            0 => DAY,
            length => length,
        }
    }
}

/// When the clients of a policy are backed up, and on what terms. All durations are seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Who starts; overrides what was said about the single client.
    pub initiator: Option<Initiator>,
    /// One backup in each.
    pub period: i64,
    /// Age of the newest snapshot at which a client is late.
    pub rpo: i64,
    /// Clients begin within this from the beginning of a period.
    pub spread: i64,
    /// When runs may start; any time if there is none.
    pub window: Option<Window>,
    /// 1 (first) to 9 (last), among those that are equally urgent.
    pub priority: u8,
    /// After so many seconds awake and reachable without a backup a late client is reported.
    pub alert_after: i64,
    /// What its agents keep to.
    pub agent: AgentTerms,
    /// Which snapshots are kept.
    pub keep: Keep,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            initiator: None,
            period: DAY,
            rpo: DAY + DAY / 2,
            spread: HOUR,
            window: None,
            priority: 5,
            alert_after: 8 * HOUR,
            agent: AgentTerms::default(),
            keep: Keep::default(),
        }
    }
}

/// Who starts a client's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initiator {
    /// As said.
    Fixed(Mode),
    /// By what its reachability recommends.
    Auto,
}

impl Initiator {
    /// The client pushes.
    pub const CLIENT: Self = Self::Fixed(Mode::Client);
    /// The server pulls.
    pub const SERVER: Self = Self::Fixed(Mode::Server);

    /// The canonical word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed(Mode::Server) => "server",
            Self::Fixed(Mode::Client) => "client",
            Self::Fixed(Mode::Hybrid) => "hybrid",
            Self::Auto => "auto",
        }
    }
}

impl std::str::FromStr for Initiator {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "server" | "pull" => Ok(Self::SERVER),
            "client" | "push" => Ok(Self::CLIENT),
            "hybrid" => Ok(Self::Fixed(Mode::Hybrid)),
            "auto" => Ok(Self::Auto),
            _ => Err("say server (pull), client (push), hybrid or auto"),
        }
    }
}

/// When a metered network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metered {
    /// Not at all.
    Never,
    /// By a client whose newest snapshot is older than twice the limit.
    WhenLate,
    /// Like any other.
    Always,
}

/// When a standing link is kept on battery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBattery {
    /// As on mains.
    Always,
    /// By late clients: each packet costs power.
    OnlyWhenLate,
}

/// What an agent keeps to. It is sent to the agents, and they report which version they have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTerms {
    /// Percent of battery below which it waits for mains.
    pub battery_min: u8,
    /// The same, for clients that are very late.
    pub battery_min_late: u8,
    /// What may be done on metered networks.
    pub metered: Metered,
    /// Bytes that one run may send there.
    pub metered_cap: Option<u64>,
    /// Seconds between check-ins.
    pub safety_net: i64,
    /// The same, for late clients.
    pub when_late: i64,
    /// Seconds within which it dials after it has joined a network.
    pub join_jitter: i64,
    /// Seconds between the packets that keep a standing link alive; none: the agent suits them to its network.
    pub keepalive: Option<i64>,
    /// Whether a standing link is kept on battery.
    pub on_battery: OnBattery,
    /// Bytes a second that it may send.
    pub limit_upload: Option<u64>,
    /// Whether it yields processor and disk to other programs.
    pub yields: bool,
}

impl Default for AgentTerms {
    fn default() -> Self {
        Self {
            battery_min: 30,
            battery_min_late: 15,
            metered: Metered::WhenLate,
            metered_cap: Some(200 << 20),
            safety_net: 4 * HOUR,
            when_late: 20 * 60,
            join_jitter: 2,
            keepalive: None,
            on_battery: OnBattery::OnlyWhenLate,
            limit_upload: None,
            yields: true,
        }
    }
}

/// What bounds the runs at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// In all.
    pub slots: usize,
    /// Per network group.
    pub per_group: BTreeMap<String, usize>,
    /// In each group that is one public address: a home, a branch.
    pub default_remote: usize,
    /// Per vault.
    pub per_vault: BTreeMap<String, usize>,
    /// That many of the slots are kept from pulls while a client that pushes is late and waits.
    pub reserve_for_clients: usize,
    /// Clients that may wait on an open connection; others are told when to come back.
    pub hold: usize,
    /// Dials at once.
    pub dials: usize,
    /// Bytes a second that are accepted, in all and per group.
    pub bytes_per_s: Option<u64>,
    /// The same per group.
    pub bytes_per_group: BTreeMap<String, u64>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            slots: DEFAULT_SLOTS,
            per_group: BTreeMap::new(),
            default_remote: 2,
            per_vault: BTreeMap::new(),
            reserve_for_clients: DEFAULT_SLOTS.div_ceil(3),
            hold: 256,
            dials: 32,
            bytes_per_s: None,
            bytes_per_group: BTreeMap::new(),
        }
    }
}

/// All of a policy file.
#[derive(Debug, Clone, PartialEq)]
pub struct Policies {
    /// By name; the default one is always there.
    pub policies: BTreeMap<String, Policy>,
    /// Bounds.
    pub admission: Admission,
    /// Named networks, the most specific prefix wins.
    pub groups: Vec<(Prefix, String)>,
    /// How this version spreads; none: it is in force at once for all.
    pub rollout: Option<Rules>,
}

/// How new versions spread: clients by name, as they are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// `None` names nobody: a percentage.
    pub waves: Vec<WaveText>,
    /// Everything but the waves.
    pub rules: RolloutRules,
}

impl Default for Rules {
    fn default() -> Self {
        let waves = vec![WaveText::Percent(5), WaveText::Percent(25), WaveText::Percent(100)];
        Self { waves, rules: RolloutRules::default() }
    }
}

/// One wave as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaveText {
    /// These clients, by name.
    Clients(Vec<String>),
    /// So many of all.
    Percent(u8),
}

impl Default for Policies {
    fn default() -> Self {
        let policies = BTreeMap::from([(DEFAULT_POLICY.to_owned(), Policy::default())]);
        Self { policies, admission: Admission::default(), groups: Vec::new(), rollout: None }
    }
}

impl Policies {
    /// The network group of an address: a named one, else its own network.
    pub fn group(&self, address: std::net::IpAddr) -> Group {
        network::group(&self.groups, address)
    }

    /// A policy by name; the default one if there is none.
    pub fn policy(&self, name: &str) -> Policy {
        let found = self.policies.get(name).or_else(|| self.policies.get(DEFAULT_POLICY));
        found.cloned().unwrap_or_default()
    }
}
