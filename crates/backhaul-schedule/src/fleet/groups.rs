//! Network groups that fall silent as a whole: that is a switch, or the server's own network, and not 200 machines.

use std::collections::BTreeMap;

use super::ClientKey;
use crate::policy::Group;

/// Failed dials within this many seconds are one event.
const TOGETHER: u64 = 300;
/// Below so many members a group is not judged.
const SMALLEST: usize = 3;
/// More than this share of the members, in percent (Kubernetes stops evictions at the same).
const SHARE: usize = 55;
/// Between two probes of a silent group, in seconds: it doubles.
const PROBE: std::ops::RangeInclusive<u64> = 300..=3_600;

#[derive(Debug, Clone, Default)]
struct Health {
    /// Clients that are dialled.
    members: usize,
    silent: BTreeMap<ClientKey, u64>,
    dark: Option<Silence>,
}

#[derive(Debug, Clone, Copy)]
struct Silence {
    probe_at: u64,
    probes: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Groups {
    all: BTreeMap<Group, Health>,
}

impl Groups {
    pub fn join(&mut self, group: &Group) {
        self.all.entry(group.clone()).or_default().members += 1;
    }

    pub fn leave(&mut self, group: &Group) {
        if let Some(health) = self.all.get_mut(group) {
            health.members = health.members.saturating_sub(1);
        }
    }

    /// Nothing is left to be known of a group.
    pub fn forget(&mut self, group: &Group) {
        self.all.remove(group);
    }

    /// A dial was not answered. Returns when to probe, if the group has fallen silent just now.
    pub fn silent(&mut self, group: &Group, client: ClientKey, now: u64) -> Option<u64> {
        let health = self.all.entry(group.clone()).or_default();
        health.silent.insert(client, now);
        health.silent.retain(|_, at| now - *at <= TOGETHER);
        let count = health.silent.len();
        if health.dark.is_some() || count < SMALLEST || count * 100 <= health.members * SHARE {
            return None;
        }
        let probe_at = now + PROBE.start();
        health.dark = Some(Silence { probe_at, probes: 0 });
        Some(probe_at)
    }

    /// Somebody of the group was heard. True if it had been silent.
    pub fn heard(&mut self, group: &Group) -> bool {
        let Some(health) = self.all.get_mut(group) else { return false };
        health.silent.clear();
        health.dark.take().is_some()
    }

    pub fn is_dark(&self, group: &Group) -> bool {
        self.all.get(group).is_some_and(|health| health.dark.is_some())
    }

    pub fn members(&self, group: &Group) -> usize {
        self.all.get(group).map_or(0, |health| health.members)
    }

    /// True if a silent group's probe is due; the next one is then due later.
    pub fn probe(&mut self, group: &Group, now: u64) -> Option<u64> {
        let silence = self.all.get_mut(group)?.dark.as_mut().filter(|silence| silence.probe_at <= now)?;
        silence.probes += 1;
        silence.probe_at = now + (PROBE.start() << silence.probes.min(8)).min(*PROBE.end());
        Some(silence.probe_at)
    }
}
