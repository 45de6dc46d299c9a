//! What we ask of ourselves: for each step and set, the most that ours may take of the best of the others' median.

use crate::Step;
use crate::data::Set;
use crate::rows::Quantity::{self, Added, Wall};

/// The backup programs that ours is compared with.
pub const PEERS: [&str; 4] = ["restic", "rustic", "borg", "bupstash"];
/// Memory of the agent and of the server, in MiB, in every step.
pub const MEMORY: (f64, f64) = (128.0, 256.0);

/// A line of the table.
pub struct Bar {
    pub name: &'static str,
    pub step: Step,
    pub quantity: Quantity,
    /// Compared with the best of these that were measured.
    pub with: &'static [&'static str],
    /// The largest ratio allowed, by set; none where nothing is asked.
    pub most: [Option<f64>; Set::ALL.len()],
}

const fn all(ratio: f64) -> [Option<f64>; Set::ALL.len()] {
    [Some(ratio); Set::ALL.len()]
}

const fn each(ratios: [f64; Set::ALL.len()]) -> [Option<f64>; Set::ALL.len()] {
    let [a, b, c, d, e] = ratios;
    [Some(a), Some(b), Some(c), Some(d), Some(e)]
}

const fn only_s1(ratio: f64) -> [Option<f64>; Set::ALL.len()] {
    [Some(ratio), None, None, None, None]
}

const fn only_s2(ratio: f64) -> [Option<f64>; Set::ALL.len()] {
    [None, Some(ratio), None, None, None]
}

/// All of them.
#[rustfmt::skip]
pub const BARS: [Bar; 9] = [
    Bar { name: "first backup, wall", step: Step::First, quantity: Wall, with: &PEERS, most: each([0.6, 0.7, 0.6, 0.7, 0.7]) },
    Bar { name: "first backup, beside `tar | zstd -3 -T2`", step: Step::First, quantity: Wall, with: &["tar|zstd"], most: only_s1(1.0) },
    Bar { name: "again, beside `rsync -a`", step: Step::Again, quantity: Wall, with: &["rsync"], most: each([1.0, 1.0, 1.0, 1.0, 1.2]) },
    Bar { name: "what the first takes, beyond what an empty one does", step: Step::First, quantity: Added, with: &PEERS, most: each([0.95, 1.0, 0.95, 0.9, 0.8]) },
    Bar { name: "bytes added by the next day", step: Step::Churn, quantity: Added, with: &PEERS, most: each([0.6, 0.8, 0.35, 0.6, 0.6]) },
    Bar { name: "restore, wall", step: Step::Restore, quantity: Wall, with: &PEERS, most: each([1.0, 1.0, 0.8, 0.8, 1.0]) },
    Bar { name: "restore, beside `zstd -d | tar x`", step: Step::Restore, quantity: Wall, with: &["tar|zstd"], most: only_s1(1.1) },
    Bar { name: "restore, beside `cp -a`", step: Step::Restore, quantity: Wall, with: &["cp"], most: only_s2(1.15) },
    Bar { name: "check of every byte, wall", step: Step::Check, quantity: Wall, with: &PEERS, most: all(1.0) },
];
