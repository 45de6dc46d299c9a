//! Decides when the network is looked at, and when what was seen is worth telling.
//!
//! A network that comes up does so in many steps, and a bad one comes and goes: what is told is what stayed.

use std::collections::BTreeMap;

use crate::signals::network::{Fingerprint, Network};

/// Spans of time, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the first hint to the look that answers it and those that come after it.
    pub coalesce: u64,
    /// So long a network stays as it is before it is told.
    pub settle: u64,
    /// The same after the machine woke up: its devices come back one after another.
    pub settle_after_resume: u64,
    /// Between two tellings of one network.
    pub apart: u64,
    /// Between two looks when nothing hints: hints may be lost.
    pub fallback: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { coalesce: 250, settle: 5_000, settle_after_resume: 15_000, apart: 30_000, fallback: 60_000 }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something about the network may have changed.
    Hint,
    /// What a look found.
    Look(Option<Network>),
    /// The machine woke up.
    Resumed,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Look, and say what was found.
    Look,
    /// Tell: this is the network now.
    Report(Option<Network>),
}

/// The machine. Times are ms since the machine started.
#[derive(Debug)]
pub struct Settle {
    pace: Pace,
    reported: Option<Network>,
    seen: Option<Network>,
    /// When it was seen last, and for the first time.
    looked: u64,
    since: u64,
    next_look: u64,
    not_before: u64,
    /// When each network was last told; older than `apart` are forgotten.
    told: BTreeMap<Option<Fingerprint>, u64>,
}

impl Settle {
    /// Begins with a network that counts as told.
    pub fn new(now: u64, network: Option<Network>, pace: Pace) -> Self {
        Self {
            pace,
            reported: network.clone(),
            seen: network,
            looked: now,
            since: now,
            next_look: now.saturating_add(pace.fallback),
            not_before: 0,
            told: BTreeMap::new(),
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, now: u64, event: Event) {
        match event {
            Event::Hint => self.next_look = self.next_look.min(now.saturating_add(self.pace.coalesce)),
            Event::Look(network) => {
                if network != self.seen {
                    self.seen = network;
                    self.since = now;
                }
                self.looked = now;
                self.next_look = now.saturating_add(self.pace.fallback);
            }
            Event::Resumed => {
                self.not_before = now.saturating_add(self.pace.settle_after_resume);
                self.next_look = now;
            }
        }
    }

    /// What is to be done now; asked again until there is nothing.
    pub fn poll(&mut self, now: u64) -> Option<Step> {
        if now >= self.next_look {
            return Some(Step::Look);
        }
        if self.report_at().is_none_or(|at| now < at) {
            return None;
        }
        if self.looked != now {
            // Told is only what is true at that moment.
            return Some(Step::Look);
        }
        self.reported.clone_from(&self.seen);
        self.told.retain(|_, at| now.saturating_sub(*at) < self.pace.apart);
        self.told.insert(print(&self.seen), now);
        Some(Step::Report(self.seen.clone()))
    }

    /// When there is something to be done next.
    pub fn deadline(&self) -> u64 {
        self.report_at().map_or(self.next_look, |at| at.min(self.next_look))
    }

    /// When what is seen is told, if it has not been.
    fn report_at(&self) -> Option<u64> {
        let told = self.told.get(&print(&self.seen)).map_or(0, |at| at.saturating_add(self.pace.apart));
        let settled = self.since.saturating_add(self.pace.settle);
        (self.seen != self.reported).then(|| settled.max(self.not_before).max(told))
    }
}

fn print(network: &Option<Network>) -> Option<Fingerprint> {
    network.as_ref().map(|network| network.fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::network::InterfaceKind;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn network(print: u8, source: u8) -> Option<Network> {
        Some(Network {
            fingerprint: Fingerprint([print; 8]),
            source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, source)),
            kind: InterfaceKind::Wifi,
        })
    }

    /// Runs the machine through a world: what is there from when on, with a hint at each change and events.
    /// Returns what was told and when, and how often was looked.
    fn live(
        world: &[(u64, Option<Network>)],
        resumes: &[u64],
        hints: bool,
        until: u64,
    ) -> (Vec<(u64, Option<Network>)>, u64) {
        let there = |now: u64| world.iter().rev().find(|(from, _)| *from <= now).and_then(|(_, n)| n.clone());
        let mut settle = Settle::new(0, there(0), Pace::default());
        let (mut told, mut looks, mut now) = (Vec::new(), 0, 0);
        loop {
            while let Some(step) = settle.poll(now) {
                match step {
                    Step::Look => {
                        looks += 1;
                        settle.handle(now, Event::Look(there(now)));
                    }
                    Step::Report(network) => told.push((now, network)),
                }
            }
            let changes = world.iter().map(|(at, _)| *at).filter(|at| hints && *at > now);
            let next =
                changes.chain(resumes.iter().copied().filter(|at| *at > now)).chain([settle.deadline()]);
            let next = next.min().unwrap_or(u64::MAX);
            assert!(next > now, "asked for a moment that is past");
            if next > until {
                return (told, looks);
            }
            now = next;
            if resumes.contains(&now) {
                settle.handle(now, Event::Resumed);
            }
            if hints && world.iter().any(|(at, _)| *at == now) {
                settle.handle(now, Event::Hint);
            }
        }
    }

    #[test]
    fn a_network_is_told_five_seconds_after_it_came() {
        let (told, looks) = live(&[(0, None), (1_000, network(1, 1))], &[], true, 20_000);
        assert_eq!(told, [(6_250, network(1, 1))]);
        assert_eq!(looks, 2);
    }

    #[test]
    fn lost_hints_cost_a_minute() {
        let (told, _) = live(&[(0, None), (1_000, network(1, 1))], &[], false, 100_000);
        assert_eq!(told, [(65_000, network(1, 1))]);
    }

    #[test]
    fn after_a_resume_it_takes_longer() {
        let (told, _) =
            live(&[(0, network(1, 1)), (1_000, None), (3_000, network(2, 1))], &[1_000], true, 60_000);
        assert_eq!(told, [(16_000, network(2, 1))]);
    }

    #[test]
    fn a_network_that_comes_back_at_once_is_not_told_and_a_new_address_is() {
        let (told, _) = live(&[(0, network(1, 1)), (1_000, None), (4_000, network(1, 1))], &[], true, 60_000);
        assert_eq!(told, []);
        let (told, _) = live(&[(0, network(1, 1)), (1_000, None), (4_000, network(1, 2))], &[], true, 60_000);
        assert_eq!(told, [(9_250, network(1, 2))]);
    }

    #[test]
    fn a_burst_of_hints_is_one_look() {
        let steps: Vec<_> = (0..20).map(|step| (step * 10, network(1, step as u8))).collect();
        let (told, looks) = live(&steps, &[], true, 20_000);
        assert_eq!(told, [(5_260, network(1, 19))]);
        assert_eq!(looks, 2);
    }

    #[test]
    fn twenty_flaps_of_six_seconds_are_told_rarely() {
        let flaps: Vec<_> =
            (0..40).map(|flap| (flap * 6_000, if flap % 2 == 0 { network(1, 1) } else { None })).collect();
        let (told, _) = live(&flaps, &[], true, 400_000);
        let ups: Vec<u64> = told.iter().filter(|(_, n)| n.is_some()).map(|(at, _)| *at).collect();
        assert!(ups.windows(2).all(|pair| pair[1] - pair[0] >= 30_000), "{ups:?}");
        assert!(ups.len() <= 240_000 / 30_000, "{ups:?}");
        assert_eq!(told.last().and_then(|(_, n)| n.clone()), None);
    }

    proptest! {
        #[test]
        fn the_last_told_is_the_last_seen_and_no_network_is_told_often(
            changes in prop::collection::vec((1u64..20_000, prop::option::of((0u8..3, 0u8..2))), 0..40),
            resumes in prop::collection::vec(1u64..400_000, 0..4),
            hints: bool,
        ) {
            let mut at = 0;
            let mut world = vec![(0, network(0, 0))];
            for (pause, next) in changes {
                at += pause;
                world.push((at, next.and_then(|(print, source)| network(print, source))));
            }
            let (told, looks) = live(&world, &resumes, hints, 1_000_000);
            let last = world.last().and_then(|(_, n)| n.clone());
            prop_assert_eq!(told.last().map_or(network(0, 0), |(_, n)| n.clone()), last);
            for (index, (at, network)) in told.iter().enumerate() {
                let before = index.checked_sub(1).map_or(world[0].1.clone(), |index| told[index].1.clone());
                prop_assert_ne!(&before, network, "told twice");
                for (other, earlier) in &told[..index] {
                    prop_assert!(print(earlier) != print(network) || at - other >= 30_000);
                }
            }
            prop_assert!(looks <= 1_000_000 / 60_000 + 2 * world.len() as u64 + resumes.len() as u64 + told.len() as u64 + 1);
        }
    }
}
