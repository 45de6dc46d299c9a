//! Who starts next: everybody who waits, in order, and the slots that are held.
//!
//! A lane is a vault, a side and a network group. Clients of a lane are in order of rank; the first of each open lane is
//! in `heads`, so that the next to start is found without looking at anybody who may not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ClientKey;
use crate::policy::{Admission, Group};

/// From which side a run is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// The client has asked, and waits on an open connection.
    Push,
    /// The server is to dial.
    Pull,
}

/// Where a client waits, and what it holds while it runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub group: Group,
    pub vault: Arc<str>,
    pub side: Side,
}

/// Why one starts before another; the order of the variants is the order of the classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Somebody asked for it.
    Manual,
    /// The newest snapshot is older than the limit.
    Late,
    /// A snapshot of this period is due.
    Due,
    /// Not due yet, but here and asking.
    Opportunistic,
}

impl Class {
    const ALL: [Self; 4] = [Self::Manual, Self::Late, Self::Due, Self::Opportunistic];

    /// The class after so many promotions.
    pub(super) fn promoted(self, levels: i64) -> Self {
        let at = (self as usize).saturating_sub(usize::try_from(levels).unwrap_or(0));
        Self::ALL[at]
    }
}

/// A place in the order; smaller starts earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub class: Class,
    pub priority: u8,
    /// How soon the machine is expected to vanish: 0 within an hour, 1 within four, 2 it stays.
    pub perish: u8,
    /// Seconds since 1970 at which it began to wait.
    pub since: i64,
    /// The older snapshot first.
    pub last_success: Option<i64>,
    pub tie: u64,
}

/// Who may be taken from the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Both,
    /// All dials that may be under way at once are.
    PushOnly,
}

type Heads = BTreeSet<(Rank, ClientKey, Group)>;

#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    admission: Admission,
    lanes: BTreeMap<Lane, BTreeSet<(Rank, ClientKey)>>,
    heads: BTreeMap<(Arc<str>, Side), Heads>,
    /// All who wait on a connection, for their positions.
    asking: BTreeSet<(Rank, ClientKey)>,
    held: usize,
    held_by_pulls: usize,
    by_group: BTreeMap<Group, usize>,
    by_vault: BTreeMap<Arc<str>, usize>,
    /// Groups that do not answer: pulls of those are held back.
    dark: BTreeSet<Group>,
}

impl Queue {
    pub fn set_admission(&mut self, admission: Admission) {
        self.admission = admission;
        let lanes: Vec<Lane> = self.lanes.keys().cloned().collect();
        lanes.iter().for_each(|lane| self.refresh(lane));
    }

    pub fn free(&self) -> usize {
        self.admission.slots.saturating_sub(self.held)
    }

    pub fn held(&self) -> usize {
        self.held
    }

    pub fn insert(&mut self, lane: &Lane, rank: Rank, client: ClientKey) {
        self.hide(lane);
        self.lanes.entry(lane.clone()).or_default().insert((rank, client));
        if lane.side == Side::Push {
            self.asking.insert((rank, client));
        }
        self.show(lane);
    }

    pub fn remove(&mut self, lane: &Lane, rank: Rank, client: ClientKey) {
        self.hide(lane);
        if let Some(waiting) = self.lanes.get_mut(lane) {
            waiting.remove(&(rank, client));
            if waiting.is_empty() {
                self.lanes.remove(lane);
            }
        }
        if lane.side == Side::Push {
            self.asking.remove(&(rank, client));
        }
        self.show(lane);
    }

    /// Takes a slot for a client of a lane.
    pub fn hold(&mut self, lane: &Lane) {
        self.held += 1;
        self.held_by_pulls += usize::from(lane.side == Side::Pull);
        *self.by_group.entry(lane.group.clone()).or_default() += 1;
        *self.by_vault.entry(Arc::clone(&lane.vault)).or_default() += 1;
        self.refresh_group(&lane.group);
    }

    /// Gives it back.
    pub fn release(&mut self, lane: &Lane) {
        self.held = self.held.saturating_sub(1);
        self.held_by_pulls = self.held_by_pulls.saturating_sub(usize::from(lane.side == Side::Pull));
        lower(&mut self.by_group, &lane.group);
        lower(&mut self.by_vault, &lane.vault);
        self.refresh_group(&lane.group);
    }

    /// Holds the pulls of a group back, or not any more.
    pub fn set_dark(&mut self, group: &Group, dark: bool) {
        let _ = if dark { self.dark.insert(group.clone()) } else { self.dark.remove(group) };
        self.refresh_group(group);
    }

    /// The first pull of a group that has room for it, though the group is silent.
    pub fn first(&self, group: &Group) -> Option<ClientKey> {
        if !has_room(self.group(group)) {
            return None;
        }
        let lanes = self.lanes.range(Lane::first_of(group)..).take_while(|(lane, _)| lane.group == *group);
        let pulls = lanes.filter(|(lane, _)| lane.side == Side::Pull && has_room(self.vault(&lane.vault)));
        pulls.filter_map(|(_, waiting)| waiting.first()).min().map(|(_, client)| *client)
    }

    /// Who is to start now, if there is a slot for anybody.
    pub fn next(&self, takes: Takes) -> Option<ClientKey> {
        if self.free() == 0 {
            return None;
        }
        let push = self.first_head(Side::Push);
        let pull = if takes == Takes::Both { self.first_head(Side::Pull) } else { None };
        // Pulls may use the reserve while nobody late is waiting for it.
        let full = self.held_by_pulls + self.admission.reserve_for_clients >= self.admission.slots;
        let reserved = full && push.is_some_and(|(rank, _)| rank.class <= Class::Late);
        let first = match (push, pull) {
            (Some(push), Some(_)) if reserved => push,
            (Some(push), Some(pull)) => push.min(pull),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return None,
        };
        Some(first.1)
    }

    /// How many are before somebody who asks, counted up to a limit.
    pub fn position(&self, rank: Rank, client: ClientKey, limit: usize) -> usize {
        self.asking.range(..(rank, client)).take(limit).count()
    }

    pub fn who_asks(&self) -> Vec<ClientKey> {
        self.asking.iter().map(|(_, client)| *client).collect()
    }

    pub fn asking(&self) -> usize {
        self.asking.len()
    }

    /// Runs that a group has, and may have.
    pub fn group(&self, group: &Group) -> (usize, Option<usize>) {
        (self.by_group.get(group).copied().unwrap_or(0), self.admission.group_cap(group))
    }

    /// Runs that a vault has, and may have.
    pub fn vault(&self, vault: &Arc<str>) -> (usize, Option<usize>) {
        (self.by_vault.get(vault).copied().unwrap_or(0), self.admission.per_vault.get(&**vault).copied())
    }

    fn first_head(&self, side: Side) -> Option<(Rank, ClientKey)> {
        let open = self.heads.iter().filter(|((vault, of), _)| *of == side && has_room(self.vault(vault)));
        open.filter_map(|(_, heads)| heads.first()).map(|(rank, client, _)| (*rank, *client)).min()
    }

    fn is_open(&self, lane: &Lane) -> bool {
        let lit = lane.side == Side::Push || !self.dark.contains(&lane.group);
        lit && has_room(self.group(&lane.group))
    }

    fn head(&self, lane: &Lane) -> Option<(Rank, ClientKey, Group)> {
        let (rank, client) = self.lanes.get(lane)?.first()?;
        Some((*rank, *client, lane.group.clone()))
    }

    fn hide(&mut self, lane: &Lane) {
        if let (Some(head), Some(heads)) =
            (self.head(lane), self.heads.get_mut(&(Arc::clone(&lane.vault), lane.side)))
        {
            heads.remove(&head);
        }
    }

    fn show(&mut self, lane: &Lane) {
        if let Some(head) = self.head(lane)
            && self.is_open(lane)
        {
            self.heads.entry((Arc::clone(&lane.vault), lane.side)).or_default().insert(head);
        }
    }

    fn refresh(&mut self, lane: &Lane) {
        self.hide(lane);
        self.show(lane);
    }

    fn refresh_group(&mut self, group: &Group) {
        let lanes = self.lanes.range(Lane::first_of(group)..).map(|(lane, _)| lane);
        let lanes: Vec<Lane> = lanes.take_while(|lane| lane.group == *group).cloned().collect();
        lanes.iter().for_each(|lane| self.refresh(lane));
    }
}

impl Lane {
    /// No lane of this group is before this one.
    fn first_of(group: &Group) -> Self {
        Self { group: group.clone(), vault: "".into(), side: Side::Push }
    }
}

fn has_room((held, cap): (usize, Option<usize>)) -> bool {
    cap.is_none_or(|cap| held < cap)
}

fn lower<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
