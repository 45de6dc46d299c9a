//! The policies in force: read from the fleet database, where the command line puts them; a new version may spread in
//! waves.

use std::sync::Arc;

use backhaul_object::ids::ClientId;
use backhaul_proto::wire;
use backhaul_schedule::due::{self, Health, Record};
use backhaul_schedule::fleet::{Plan, offset};
use backhaul_schedule::policy::{
    AgentTerms, Group, Metered, OnBattery, Policies, Policy, PolicyError, WaveText, parse,
};
use backhaul_schedule::rollout::{Baseline, Outcome, Rollout, RolloutEvent, State, Wave};
use jiff::tz::TimeZone;

use crate::error::ServerError;
use crate::fleet::{Client, ClientState, Fleet, Version};

/// Reads a policy file; time zones are those of this machine.
///
/// # Errors
/// The first mistake, named.
pub fn read(text: &str) -> Result<Policies, PolicyError> {
    parse(text, &|name| match name {
        None => Some(TimeZone::system()),
        Some(name) => TimeZone::get(name).ok(),
    })
}

/// The newest policies. A text that was applied is a text that could be read.
///
/// # Errors
/// The database, or a text that another version wrote.
pub fn in_force(fleet: &Fleet) -> Result<Policies, ServerError> {
    Ok(read(&fleet.policy_text()?)?)
}

/// Who has which version, for whoever only looks.
///
/// # Errors
/// As [`in_force`].
pub fn versions(fleet: &Fleet, now: i64) -> Result<Versions, ServerError> {
    let clients = fleet.clients()?;
    // As the server does: nobody waits for those who have not joined, or were revoked.
    let active: Vec<&Client> = clients.iter().filter(|client| client.state == ClientState::Active).collect();
    let mut versions = Versions::default();
    versions.refresh(fleet, &active, now)?;
    Ok(versions)
}

/// A version with what it says.
#[derive(Debug, Clone, Default)]
struct Loaded {
    number: u64,
    policies: Policies,
}

/// The newest version, the one before, and who has which.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    newest: Loaded,
    previous: Option<Loaded>,
    rollout: Option<Rollout>,
    /// What happened to the rollout and has not been said.
    news: Vec<RolloutEvent>,
    changed: bool,
}

impl Versions {
    /// The newest policies: bounds and groups are always theirs.
    pub fn newest(&self) -> &Policies {
        &self.newest.policies
    }

    /// The version and policies that a client shall have.
    pub fn of(&self, client: ClientId) -> (u64, &Policies) {
        let offered = self.rollout.as_ref().map_or(self.newest.number, |rollout| rollout.offer(client.0));
        let loaded = match &self.previous {
            Some(previous) if offered == previous.number => previous,
            _ => &self.newest,
        };
        (loaded.number, &loaded.policies)
    }

    /// Reads the newest version; true when there is a new one.
    ///
    /// # Errors
    /// The database, or a text that cannot be read.
    pub fn refresh(&mut self, fleet: &Fleet, clients: &[&Client], now: i64) -> Result<bool, ServerError> {
        let newest = fleet.newest_version()?.filter(|version| version.number != self.newest.number);
        let Some(version) = newest else { return Ok(false) };
        let policies = read(&version.text)?;
        let before = settled_before(fleet, version.number)?;
        self.rollout = begin(&version, &policies, before.as_ref(), clients, now);
        self.changed = true;
        (self.newest, self.previous) = (Loaded { number: version.number, policies }, before);
        Ok(true)
    }

    /// Goes on with the rollout as time passes and runs end; true when somebody's policy may be another now.
    ///
    /// # Errors
    /// The database.
    pub fn go_on(&mut self, fleet: &Fleet, now: i64) -> Result<bool, ServerError> {
        let Some(rollout) = &mut self.rollout else { return Ok(false) };
        let resumed = fleet.take_wanted_resume(self.newest.number)?;
        if resumed {
            rollout.resume(now);
        }
        let news = rollout.step(now);
        let moved = resumed || !news.is_empty();
        self.changed |= moved;
        self.news.extend(news);
        Ok(moved)
    }

    /// What happened to the rollout since this was last asked, in words; the first is true when it was halted.
    pub fn take_news(&mut self) -> Vec<(RolloutEvent, String)> {
        let number = self.newest.number;
        let words = |event: &RolloutEvent| match event {
            RolloutEvent::Opened { wave } => format!("policy version {number}: wave {} begins", wave + 1),
            RolloutEvent::Halted { why } => format!("policy version {number} was halted: {why}"),
            RolloutEvent::Completed => format!("policy version {number} has reached every client"),
        };
        std::mem::take(&mut self.news).into_iter().map(|event| (event, words(&event))).collect()
    }

    /// A client is new.
    pub fn joined(&mut self, client: ClientId) {
        if let Some(rollout) = &mut self.rollout {
            rollout.joined(client.0);
        }
    }

    /// A client is gone.
    pub fn removed(&mut self, client: ClientId) {
        if let Some(rollout) = &mut self.rollout {
            rollout.removed(client.0);
            self.changed = true;
        }
    }

    /// A client's agent keeps to a version, or cannot.
    pub fn applied(&mut self, client: ClientId, version: u64, result: Result<(), u32>) {
        if let Some(rollout) = self.rollout.as_mut().filter(|rollout| *rollout.state() != State::Completed) {
            rollout.applied(client.0, version, result);
            self.changed = true;
        }
    }

    /// A run of a client that keeps to a version has ended.
    pub fn finished(&mut self, client: ClientId, version: u64, outcome: Outcome, now: i64) {
        if let Some(rollout) = self.rollout.as_mut().filter(|rollout| *rollout.state() != State::Completed) {
            rollout.finished(client.0, version, outcome, now);
            self.changed = true;
        }
    }

    /// Writes the rollout's state down if it has changed.
    ///
    /// # Errors
    /// The database.
    pub fn keep(&mut self, fleet: &Fleet) -> Result<(), ServerError> {
        if let Some(Ok(text)) = self.rollout.as_ref().filter(|_| self.changed).map(serde_json::to_string) {
            fleet.keep_rollout(self.newest.number, &text)?;
        }
        self.changed = false;
        Ok(())
    }
}

/// The newest version before another that everybody had: one without waves, or whose waves are through. A version that was
/// halted, or overtaken before it got anywhere, is nothing to fall back to.
fn settled_before(fleet: &Fleet, number: u64) -> Result<Option<Loaded>, ServerError> {
    for number in (1..number).rev() {
        let Some(version) = fleet.version(number)? else { continue };
        let policies = read(&version.text)?;
        let kept = version.rollout.as_ref().and_then(|text| serde_json::from_str::<Rollout>(text).ok());
        let settled = match kept {
            Some(rollout) => *rollout.state() == State::Completed,
            None => policies.rollout.is_none() || number == 1,
        };
        if settled {
            return Ok(Some(Loaded { number, policies }));
        }
    }
    Ok(None)
}

/// The rollout of a version: as it was kept, or a new one where the file asks for waves.
fn begin(
    version: &Version,
    policies: &Policies,
    before: Option<&Loaded>,
    clients: &[&Client],
    now: i64,
) -> Option<Rollout> {
    let kept = version.rollout.as_ref().and_then(|text| serde_json::from_str::<Rollout>(text).ok());
    if let Some(mut kept) = kept {
        // Who left while no server ran would be waited for.
        kept.keep_only(|key| clients.iter().any(|client| client.id.0 == *key));
        return Some(kept);
    }
    let (rules, before) = (policies.rollout.as_ref()?, before?);
    let key = |name: &String| clients.iter().find(|client| client.name == *name).map(|client| client.id.0);
    let wave = |text: &WaveText| match text {
        WaveText::Clients(names) => Wave::Named(names.iter().filter_map(key).collect()),
        WaveText::Percent(percent) => Wave::Percent(*percent),
    };
    let mut all = rules.rules.clone();
    all.waves = rules.waves.iter().map(wave).collect();
    let clients = clients.iter().map(|client| client.id.0);
    Some(Rollout::begin(version.number, before.number, all, Baseline::default(), clients, now))
}

/// What the scheduler has to know of a client.
pub fn plan(versions: &Versions, client: &Client) -> Plan {
    let (_, policies) = versions.of(client.id);
    let policy = policy_of(policies, client);
    Plan {
        initiator: policy.initiator.unwrap_or(client.initiator),
        policy: Arc::new(policy),
        has_address: client.address.is_some() || client.reported.is_some(),
        group: group(versions.newest(), client),
        vault: client.vault.as_str().into(),
        paused_until: client.paused_until,
        added: client.added_at as i64,
    }
}

/// A client's policy, in its own time zone where the policy says so.
pub fn policy_of(policies: &Policies, client: &Client) -> Policy {
    let mut policy = policies.policy(&client.policy);
    if let Some(window) = policy.window.as_mut().filter(|window| window.of_client)
        && let Some(zone) = client.zone.as_deref().and_then(|name| TimeZone::get(name).ok())
    {
        window.zone = zone;
    }
    if policy.keep.of_client
        && let Some(zone) = client.zone.as_deref().and_then(|name| TimeZone::get(name).ok())
    {
        policy.keep.zone = zone;
    }
    policy
}

/// A client's network group: where it was seen last, else where it is to be dialled.
pub fn group(policies: &Policies, client: &Client) -> Group {
    let dialled = || client.address.as_deref().and_then(|text| text.parse::<std::net::SocketAddr>().ok());
    match client.observed.or_else(|| dialled().map(|address| address.ip())) {
        Some(address) => policies.group(address),
        None => Group::unknown(),
    }
}

/// How well a client is protected by a policy; `newest` and `now` are seconds since 1970.
pub fn judge(policy: &Policy, client: &Client, newest: Option<u64>, now: u64) -> Health {
    let record = Record {
        offset: offset(&client.id.0),
        last_success: newest.map(|at| at as i64),
        added: client.added_at as i64,
    };
    due::health(policy, &record, client.seen_at.map(|at| at as i64), now as i64)
}

/// Terms as they travel.
pub fn terms(version: u64, terms: &AgentTerms) -> wire::Terms {
    let metered = match terms.metered {
        Metered::Never => wire::Metered::Never,
        Metered::WhenLate => wire::Metered::WhenLate,
        Metered::Always => wire::Metered::Always,
    };
    wire::Terms {
        version,
        battery_min: terms.battery_min.into(),
        battery_min_late: terms.battery_min_late.into(),
        metered: metered.into(),
        metered_cap: terms.metered_cap.unwrap_or(0),
        safety_net: terms.safety_net.unsigned_abs(),
        when_late: terms.when_late.unsigned_abs(),
        join_jitter: terms.join_jitter.unsigned_abs(),
        keepalive: terms.keepalive.map_or(0, i64::unsigned_abs),
        link_on_battery: terms.on_battery == OnBattery::Always,
        limit_upload: terms.limit_upload.unwrap_or(0),
        yields: terms.yields,
    }
}
