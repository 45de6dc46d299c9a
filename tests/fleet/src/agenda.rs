//! What will happen: in the order of time, and at one time in the order in which it was planned.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::case::MINUTE;
use crate::sim::Ev;

/// Everything that is planned. Only what is of this minute is in order: in one heap of all, each event would be moved many
/// times on its way.
#[derive(Default)]
pub(crate) struct Agenda {
    minute: u64,
    heap: BinaryHeap<Reverse<Later>>,
    later: BTreeMap<u64, Vec<Reverse<Later>>>,
    planned: u64,
}

impl Agenda {
    /// Plans something.
    pub(crate) fn put(&mut self, at: u64, ev: Ev) {
        self.planned += 1;
        let (minute, later) = (at / MINUTE, Reverse(Later { at, number: self.planned, ev }));
        match minute <= self.minute {
            true => self.heap.push(later),
            false => self.later.entry(minute).or_default().push(later),
        }
    }

    /// What is next, and when.
    pub(crate) fn next(&mut self) -> Option<(u64, Ev)> {
        if self.heap.is_empty() {
            let (minute, all) = self.later.pop_first()?;
            (self.minute, self.heap) = (minute, all.into());
        }
        self.heap.pop().map(|Reverse(later)| (later.at, later.ev))
    }
}

struct Later {
    at: u64,
    number: u64,
    ev: Ev,
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_time_and_then_of_planning() {
        let mut agenda = Agenda::default();
        let mut lot = crate::lot::Lot::new(1, 1);
        let (mut now, mut planned, mut heard) = (0, 0, Vec::new());
        while planned < 5_000 || !heard.is_empty() {
            // More is planned meanwhile, much of it for the same moment.
            while planned < 5_000 && lot.chance(0.55) {
                let at = now + lot.roll() % 4 * 30_000;
                agenda.put(at, Ev::Ready(planned, 0));
                heard.push((at, planned));
                planned += 1;
            }
            heard.sort_unstable();
            let next = agenda.next().map(|(at, ev)| match ev {
                Ev::Ready(number, _) => (at, number),
                _ => (at, usize::MAX),
            });
            assert_eq!(next, (!heard.is_empty()).then(|| heard.remove(0)));
            now = next.map_or(now, |(at, _)| at);
        }
        assert_eq!(planned, 5_000);
    }
}
