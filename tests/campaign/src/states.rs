//! The states in which a power cut can leave a disk, from the record of what was asked of it.
//!
//! What was synced before the cut is there. Of the rest any part may be: writes may be lost, kept out of order, or torn
//! between sectors; names may be lost, in order (as with a journal) or out of order (as without). A rename is one step,
//! and durable with either of its directories.

use backhaul_tests::dice::Dice;

use crate::disk::{Image, Op};

/// Of what a failed sync should have kept: no later one does.
const LOST: usize = usize::MAX - 1;

/// A disk as it was, and what was asked of it then.
pub struct Recording {
    /// Durable before the story began.
    pub base: Image,
    /// In order.
    pub ops: Vec<Op>,
    /// For each operation the first sync, after it, that makes it durable.
    durable: Vec<usize>,
}

/// What becomes of writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    Dropped,
    Kept,
    Some,
    Torn { sector: usize },
}

/// What becomes of names whose directory was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Dropped,
    Kept,
    InOrder,
    Some,
}

impl Recording {
    /// Of a story.
    pub fn new(base: Image, ops: Vec<Op>) -> Self {
        let synced = |from: usize, ino: u64| {
            let of_it = |op: &Op| matches!(op, Op::Sync(other) | Op::Lost(other) if *other == ino);
            match ops[from..].iter().position(of_it) {
                Some(at) if matches!(ops[from + at], Op::Lost(_)) => LOST,
                Some(at) => from + at,
                None => usize::MAX,
            }
        };
        let of = |(at, op): (usize, &Op)| match op {
            Op::Write(ino, ..) | Op::Cut(ino, _) => synced(at, *ino),
            Op::Name((dir, _), _) | Op::Unname((dir, _)) => synced(at, *dir),
            Op::Move((from, _), (to, _), _) => synced(at, *from).min(synced(at, *to)),
            Op::Born(..) | Op::Sync(_) | Op::Lost(_) => at,
        };
        let durable = ops.iter().enumerate().map(of).collect();
        Self { base, ops, durable }
    }

    /// One state after a cut before operation `at`.
    pub fn state(&self, at: usize, dice: &mut Dice) -> Image {
        let data = match dice.below(6) {
            0 => Data::Dropped,
            1 => Data::Kept,
            2 => Data::Some,
            3 => Data::Torn { sector: 512 },
            _ => Data::Torn { sector: 4_096 },
        };
        let names = match dice.below(5) {
            0 => Names::Dropped,
            1 => Names::Kept,
            2 => Names::Some,
            _ => Names::InOrder,
        };
        let last = self.last_name(at, names, dice);
        let mut image = self.base.clone();
        for (i, op) in self.ops[..at].iter().enumerate() {
            if self.durable[i] < at {
                image.apply(op);
                continue;
            }
            match op {
                // A sync that failed has given it up.
                Op::Write(..) | Op::Cut(..) if self.durable[i] == LOST => {}
                Op::Write(ino, place, bytes) => lay(&mut image, data, (*ino, *place, bytes), dice),
                Op::Cut(..) if data == Data::Kept || data != Data::Dropped && dice.once_in(2) => {
                    image.apply(op)
                }
                Op::Name(..) | Op::Unname(..) | Op::Move(..) if i < last => image.apply(op),
                Op::Name(..) | Op::Unname(..) | Op::Move(..) if names == Names::Some && dice.once_in(2) => {
                    image.apply(op);
                }
                _ => {}
            }
        }
        image
    }

    /// The operation before which all names are kept. A journal that has one that is durable has all before it.
    fn last_name(&self, at: usize, names: Names, dice: &mut Dice) -> usize {
        match names {
            Names::Dropped | Names::Some => 0,
            Names::Kept => at,
            Names::InOrder => {
                let is_name = |op: &Op| matches!(op, Op::Name(..) | Op::Unname(..) | Op::Move(..));
                let durable = (0..at).rev().find(|i| self.durable[*i] < at && is_name(&self.ops[*i]));
                let from = durable.map_or(0, |i| i + 1);
                from + dice.index(at - from + 1)
            }
        }
    }
}

/// Puts what is left of a write on the disk.
fn lay(image: &mut Image, data: Data, (ino, place, bytes): (u64, u64, &[u8]), dice: &mut Dice) {
    match data {
        Data::Dropped => {}
        Data::Kept => image.write(ino, place, bytes),
        Data::Some if dice.once_in(2) => image.write(ino, place, bytes),
        Data::Some => {}
        Data::Torn { sector } => {
            // Whole, nothing, a beginning, or any of its sectors.
            let fate = dice.below(4);
            let first = (place as usize).next_multiple_of(sector) - place as usize;
            let mut cuts: Vec<usize> = (first..bytes.len()).step_by(sector).collect();
            cuts.insert(0, 0);
            cuts.push(bytes.len());
            let kept = dice.index(cuts.len());
            for (n, pair) in cuts.windows(2).enumerate() {
                let keep = match fate {
                    0 => true,
                    1 => false,
                    2 => n < kept,
                    _ => dice.once_in(2),
                };
                if keep {
                    image.write(ino, place + pair[0] as u64, &bytes[pair[0]..pair[1]]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Kind, ROOT};

    fn file(image: &Image, name: &str) -> Option<Vec<u8>> {
        image.find(ROOT, name.as_ref()).map(|ino| image.nodes[&ino].bytes.clone())
    }

    fn states(ops: Vec<Op>) -> Vec<Image> {
        let (recording, at) = (Recording::new(Image::default(), ops.clone()), ops.len());
        (0..500).map(|n| recording.state(at, &mut Dice::of(1, n))).collect()
    }

    fn new_file(ino: u64, name: &str) -> [Op; 2] {
        [Op::Born(ino, Kind::File, 0o644), Op::Name((ROOT, name.into()), ino)]
    }

    #[test]
    fn what_was_synced_is_in_every_state() {
        let [born, name] = new_file(2, "a");
        let ops = vec![born, name, Op::Write(2, 0, vec![7; 2_000]), Op::Sync(2), Op::Sync(ROOT)];
        assert!(states(ops).iter().all(|image| file(image, "a") == Some(vec![7; 2_000])));
    }

    #[test]
    fn a_write_that_was_not_synced_is_lost_torn_or_kept() {
        let [born, name] = new_file(2, "a");
        let all = states(vec![born, name, Op::Sync(ROOT), Op::Write(2, 0, vec![7; 2_000])]);
        let lens: std::collections::BTreeSet<usize> =
            all.iter().filter_map(|image| file(image, "a")).map(|bytes| bytes.len()).collect();
        assert_eq!(lens, [0, 512, 1_024, 1_536, 2_000].into());
        let holes =
            all.iter().filter_map(|image| file(image, "a")).filter(|bytes| bytes.contains(&0)).count();
        assert!(holes > 0);
    }

    /// Written to a temporary name and renamed without a sync in between: the name can be there and the bytes not.
    #[test]
    fn a_rename_before_the_data_leaves_an_empty_file_in_some_state() {
        let [born, name] = new_file(2, "a.tmp");
        let rename = Op::Move((ROOT, "a.tmp".into()), (ROOT, "a".into()), 2);
        let all = states(vec![born, name, Op::Write(2, 0, vec![7; 10]), rename, Op::Sync(ROOT)]);
        assert!(all.iter().all(|image| file(image, "a").is_some() && file(image, "a.tmp").is_none()));
        assert!(all.iter().any(|image| file(image, "a") == Some(vec![])));
    }

    #[test]
    fn a_name_whose_directory_was_not_synced_may_be_lost_and_a_journal_loses_the_last_first() {
        let ops: Vec<Op> = [new_file(2, "a"), new_file(3, "b")].into_iter().flatten().collect();
        let all = states(ops);
        let both = |image: &Image| (file(image, "a").is_some(), file(image, "b").is_some());
        let seen: std::collections::BTreeSet<(bool, bool)> = all.iter().map(both).collect();
        assert_eq!(seen.len(), 4, "{seen:?}");
    }
}
