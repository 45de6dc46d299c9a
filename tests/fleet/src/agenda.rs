//! What will happen: in the order of time, and at one time in the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::sim::Ev;

/// Everything that is planned.
#[derive(Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<Later>>,
    planned: u64,
}

impl Agenda {
    /// Plans something.
    pub(crate) fn put(&mut self, at: u64, ev: Ev) {
        self.planned += 1;
        self.heap.push(Reverse(Later { at, number: self.planned, ev }));
    }

    /// What is next, and when.
    pub(crate) fn next(&mut self) -> Option<(u64, Ev)> {
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
