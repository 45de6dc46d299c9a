//! Why a client is not being backed up right now, or that it is.

use std::fmt;

use super::client::{Client, DIALS_PER_PERIOD, Phase};
use super::groups::Groups;
use super::queue::{Queue, Side};
use super::{ClientKey, Fleet, Serving};
use crate::Now;
use crate::due::Standing;
use crate::policy::units::about;

/// What keeps a client from its backup, for who has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing.
    None,
    /// It is not there.
    Absent,
    /// It is there, and does not want to or may not.
    Gated,
    /// Its runs fail.
    Failing,
    /// There is no slot for it.
    Waiting,
}

impl Obstacle {
    const ALL: [Self; 5] = [Self::None, Self::Absent, Self::Gated, Self::Failing, Self::Waiting];

    /// The word in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Absent => "absent",
            Self::Gated => "gated",
            Self::Failing => "failing",
            Self::Waiting => "waiting",
        }
    }
}

impl std::str::FromStr for Obstacle {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|known| known.as_str() == text).ok_or(())
    }
}

/// The reason, with its numbers. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the sentence below")]
pub enum Why {
    Unknown,
    Running,
    Dialling,
    Interrupted { left: u64 },
    Protected { next: i64 },
    Early { next: i64 },
    Shut { next: i64 },
    Paused { until: i64 },
    NotNow { reason: String, until: i64 },
    Slots { held: usize },
    GroupFull { group: String, cap: usize },
    VaultFull { vault: String, cap: usize },
    GroupSilent { group: String },
    Unanswered { failures: u32, again_in: u64 },
    DialsSpent { dials: u32 },
    FailedRun { code: u32, why: String, again_in: u64 },
    Cut { again_in: u64 },
    ComesItself,
    Absent { pulls: bool, seen: Option<i64> },
    Nudged,
    Linked,
    StorageFull,
    Draining,
}

impl Why {
    /// Which kind of obstacle it is.
    pub fn obstacle(&self) -> Obstacle {
        match self {
            Self::Running | Self::Dialling | Self::Nudged | Self::Linked => Obstacle::None,
            Self::Protected { .. } | Self::Early { .. } | Self::Shut { .. } => Obstacle::None,
            Self::Paused { .. } | Self::NotNow { .. } => Obstacle::Gated,
            Self::FailedRun { .. } => Obstacle::Failing,
            Self::Slots { .. } | Self::GroupFull { .. } | Self::VaultFull { .. } => Obstacle::Waiting,
            Self::StorageFull | Self::Draining => Obstacle::Waiting,
            Self::Interrupted { .. }
            | Self::Cut { .. }
            | Self::GroupSilent { .. }
            | Self::Unanswered { .. } => Obstacle::Absent,
            Self::DialsSpent { .. } | Self::ComesItself | Self::Absent { .. } | Self::Unknown => {
                Obstacle::Absent
            }
        }
    }
}

impl Why {
    /// Before which moment nothing begins because of it, seconds since 1970.
    pub fn until(&self, now: Now) -> Option<i64> {
        match self {
            Self::NotNow { until, .. } => Some(*until),
            Self::Cut { again_in } | Self::FailedRun { again_in, .. } | Self::Unanswered { again_in, .. } => {
                Some(now.wall.saturating_add(i64::try_from(*again_in).unwrap_or(i64::MAX)))
            }
            _ => None,
        }
    }
}

/// Local time is the reader's: only times of day within a day or so are said.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = |seconds: &u64| about(i64::try_from(*seconds).unwrap_or(i64::MAX));
        match self {
            Self::Unknown => write!(f, "not known"),
            Self::Running => write!(f, "running"),
            Self::Dialling => write!(f, "being dialled"),
            Self::Interrupted { left } => {
                write!(f, "its connection was lost in a run; its slot is kept for {}", again(left))
            }
            Self::Protected { .. } => write!(f, "has its snapshot of this period"),
            Self::Early { .. } => write!(f, "waiting for its moment"),
            Self::Shut { .. } => write!(f, "waiting for its window"),
            Self::Paused { .. } => write!(f, "gated: paused on the server"),
            Self::NotNow { reason, .. } => write!(f, "gated: {reason}"),
            Self::Slots { held } => write!(f, "waiting for a slot: {held} run"),
            Self::GroupFull { group, cap } => {
                write!(f, "waiting for a slot: network group {group} has its {cap}")
            }
            Self::VaultFull { vault, cap } => write!(f, "waiting for a slot: vault {vault} has its {cap}"),
            Self::GroupSilent { group } => write!(f, "absent: network group {group} does not answer"),
            Self::Unanswered { failures, again_in } => {
                let times = if *failures == 1 { "once".to_owned() } else { format!("{failures} times") };
                write!(f, "absent: dialled {times} in vain, again in {}", again(again_in))
            }
            Self::DialsSpent { dials } => {
                write!(f, "absent: dialled {dials} times in this period, waiting for it to come")
            }
            Self::FailedRun { code, why, again_in } => {
                write!(f, "failing: {why} (code {code}), again in {}", again(again_in))
            }
            Self::Cut { again_in } => {
                write!(f, "absent: its last run was cut, again in {}", again(again_in))
            }
            Self::ComesItself => write!(f, "absent: dials were in vain for days, waiting for it to come"),
            Self::Absent { pulls, seen } => {
                let what = if *pulls { "no address to dial" } else { "it pushes, and has not come" };
                write!(f, "absent: {what}{}", if seen.is_none() { " yet" } else { "" })
            }
            Self::Nudged => write!(f, "nudged, about to come"),
            Self::Linked => write!(f, "linked, about to ask"),
            Self::StorageFull => write!(f, "waiting: the server's disk is nearly full"),
            Self::Draining => write!(f, "waiting: the server is stopping"),
        }
    }
}

/// What the reason depends on beside the client.
pub(super) struct Around<'f> {
    pub queue: &'f Queue,
    pub groups: &'f Groups,
    pub serving: Serving,
}

pub(super) fn why(client: &Client, standing: Standing, now: Now, around: &Around<'_>) -> Why {
    match client.phase {
        Phase::Running { .. } => return Why::Running,
        Phase::Dialling => return Why::Dialling,
        Phase::Interrupted { until } => return Why::Interrupted { left: until.saturating_sub(now.boot) },
        Phase::Idle => {}
    }
    let by_hand = client.is_asked_for();
    if client.asking.is_none() && !by_hand {
        match standing {
            Standing::Protected { next } => return Why::Protected { next },
            Standing::Early { next } => return Why::Early { next },
            Standing::Waiting { next } => return Why::Shut { next },
            Standing::Due { .. } | Standing::Late { .. } => {}
        }
        if let Some(until) = client.plan.paused_until.filter(|_| client.is_paused(now.wall)) {
            return Why::Paused { until };
        }
    }
    match client.asking {
        Some(_) => waiting(client, Side::Push, around),
        None => absent(client, standing, now, around),
    }
}

/// It waits for a slot: for which?
fn waiting(client: &Client, side: Side, around: &Around<'_>) -> Why {
    let (group, vault) = (around.queue.group(&client.plan.group), around.queue.vault(&client.plan.vault));
    match (group, vault) {
        _ if around.serving == Serving::Full => Why::StorageFull,
        _ if around.serving == Serving::Draining => Why::Draining,
        _ if side == Side::Pull && around.groups.is_dark(&client.plan.group) => {
            Why::GroupSilent { group: client.plan.group.to_string() }
        }
        ((held, Some(cap)), _) if held >= cap => Why::GroupFull { group: client.plan.group.to_string(), cap },
        (_, (held, Some(cap))) if held >= cap => Why::VaultFull { vault: client.plan.vault.to_string(), cap },
        _ => Why::Slots { held: around.queue.held() },
    }
}

/// It is due and not here, or not asking.
fn absent(client: &Client, standing: Standing, now: Now, around: &Around<'_>) -> Why {
    let by_hand = client.is_asked_for();
    if let Some(not_now) = client.refuses(now.wall).filter(|_| !by_hand) {
        return Why::NotNow { reason: not_now.reason.clone(), until: not_now.until };
    }
    if now.boot < client.retry_at && !by_hand {
        let again_in = client.retry_at - now.boot;
        return match client.memory.failure.clone() {
            Some((code, why)) => Why::FailedRun { code, why, again_in },
            None => Why::Cut { again_in },
        };
    }
    if client.nudged.open.is_some() {
        return Why::Nudged;
    }
    if client.link.is_some() {
        let nudged_enough = client.nudge_wish(standing, now).is_none();
        return if nudged_enough { Why::Linked } else { waiting(client, Side::Push, around) };
    }
    if client.place.is_some() || client.queued.is_some() {
        return waiting(client, Side::Pull, around);
    }
    if client.plan.has_address && now.boot < client.tries.not_before {
        let again_in = client.tries.not_before - now.boot;
        return Why::Unanswered { failures: client.tries.failures, again_in };
    }
    if client.plan.has_address && client.falls_back() {
        return Why::ComesItself;
    }
    if client.plan.has_address && client.dials(now.wall) >= DIALS_PER_PERIOD {
        return Why::DialsSpent { dials: client.dials(now.wall) };
    }
    Why::Absent { pulls: client.mode() == crate::reach::Mode::Server, seen: client.memory.last_seen }
}

impl Fleet {
    /// Why a client is not running now, or that it is.
    pub fn explain(&self, now: Now, key: &ClientKey) -> Why {
        let Some(client) = self.clients.get(key) else { return Why::Unknown };
        let around = Around { queue: &self.queue, groups: &self.groups, serving: self.serving };
        why(client, client.standing(key, now.wall), now, &around)
    }

    /// In how many seconds a client should come by itself; 0 is now.
    pub fn due_in(&self, now: Now, key: &ClientKey) -> u64 {
        let client = self.clients.get(key);
        client.map_or(0, |client| u64::try_from(client.due_in(key, now)).unwrap_or(0))
    }

    /// The same, if the client had a new snapshot now.
    pub fn due_after_success(&self, now: Now, key: &ClientKey) -> u64 {
        let Some(client) = self.clients.get(key) else { return 0 };
        let fresh =
            Client { last_success: Some(now.wall), manual: None, ..Client::new(client.plan.clone(), None) };
        u64::try_from(fresh.due_in(key, now)).unwrap_or(0)
    }

    /// When a client's next run is due, and may begin, seconds since 1970; none while nobody says when. It is never
    /// before what [`Fleet::explain`] says.
    pub fn starts_at(&self, now: Now, key: &ClientKey) -> Option<i64> {
        let client = self.clients.get(key)?;
        let for_ever = client.plan.paused_until == Some(i64::MAX) && !client.is_asked_for();
        let held = self.explain(now, key).until(now);
        (!for_ever).then(|| client.let_in_at(key, now.wall).max(held.unwrap_or(now.wall)))
    }

    /// True while a client's run goes over this session.
    pub fn runs_on(&self, key: &ClientKey, session: super::Session) -> bool {
        self.running_on(key) == Some(session)
    }

    /// The session of a client's run.
    pub fn running_on(&self, key: &ClientKey) -> Option<super::Session> {
        match self.clients.get(key)?.phase {
            Phase::Running { session, .. } => Some(session),
            Phase::Idle | Phase::Dialling | Phase::Interrupted { .. } => None,
        }
    }

    /// True when a client is worth a standing link.
    pub fn should_stay(&self, key: &ClientKey) -> bool {
        self.clients.get(key).is_some_and(Client::should_stay)
    }

    /// Age of a client's newest snapshot in limits of its policy.
    pub fn lateness(&self, now: Now, key: &ClientKey) -> f64 {
        let lateness = |client: &Client| client.record(key).lateness(&client.plan.policy, now.wall);
        self.clients.get(key).map_or(0.0, lateness)
    }

    /// Who starts a client's runs now, `auto` resolved.
    pub fn mode(&self, key: &ClientKey) -> Option<crate::reach::Mode> {
        self.clients.get(key).map(Client::mode)
    }

    /// What a client's contacts recommend, with the reasons.
    pub fn recommend(&self, now: Now, key: &ClientKey) -> Option<crate::reach::Recommendation> {
        self.clients.get(key).map(|client| client.recommend(now.wall))
    }

    /// The session of a client's standing link.
    pub fn linked_on(&self, key: &ClientKey) -> Option<super::Session> {
        self.clients.get(key)?.link.map(|link| link.session)
    }

    /// True while a client has a standing link.
    pub fn is_linked(&self, key: &ClientKey) -> bool {
        self.clients.get(key).is_some_and(|client| client.link.is_some())
    }
}

impl Fleet {
    /// True when the server is to dial a client for its runs.
    pub fn is_dialled(&self, key: &ClientKey) -> bool {
        let dialled =
            |client: &Client| client.plan.has_address && client.mode() == crate::reach::Mode::Server;
        self.clients.get(key).is_some_and(|client| dialled(client) && !client.falls_back())
    }

    /// How urgent a client's run is at a moment.
    pub fn class_at(&self, at: i64, key: &ClientKey) -> super::Class {
        let Some(client) = self.clients.get(key) else { return super::Class::Opportunistic };
        match client.standing(key, at) {
            _ if client.is_asked_for() => super::Class::Manual,
            Standing::Late { .. } => super::Class::Late,
            Standing::Due { .. } => super::Class::Due,
            Standing::Early { .. } | Standing::Waiting { .. } | Standing::Protected { .. } => {
                super::Class::Opportunistic
            }
        }
    }
}
