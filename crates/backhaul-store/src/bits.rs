//! A set of object numbers, a bit each.

use std::ops::Range;

use crate::index::Ordinal;

/// A set of ordinals: one bit for each number up to the highest.
#[derive(Debug, Clone, Default)]
pub struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// An empty set with room for the numbers below `count`.
    pub fn sized(count: u64) -> Self {
        Self { words: vec![0; count.div_ceil(64) as usize] }
    }

    /// True for a member.
    pub fn has(&self, ordinal: Ordinal) -> bool {
        self.words.get(ordinal.0 as usize / 64).is_some_and(|word| word >> (ordinal.0 % 64) & 1 == 1)
    }

    /// Adds a member.
    pub fn add(&mut self, ordinal: Ordinal) {
        self.make_room(ordinal.0 + 1);
        self.words[ordinal.0 as usize / 64] |= 1 << (ordinal.0 % 64);
    }

    /// Removes a member; true when it was there.
    pub fn remove(&mut self, ordinal: Ordinal) -> bool {
        let had = self.has(ordinal);
        if had {
            self.words[ordinal.0 as usize / 64] &= !(1 << (ordinal.0 % 64));
        }
        had
    }

    /// Adds all numbers of a range.
    pub fn add_range(&mut self, range: Range<u64>) {
        self.make_room(range.end);
        let mut at = range.start;
        while at < range.end {
            let (word, bit) = (at as usize / 64, at % 64);
            let n = (64 - bit).min(range.end - at);
            let mask = if n == 64 { u64::MAX } else { ((1 << n) - 1) << bit };
            self.words[word] |= mask;
            at += n;
        }
    }

    /// Adds all members of another set.
    pub fn add_all(&mut self, other: &Self) {
        self.make_room(other.words.len() as u64 * 64);
        self.words.iter_mut().zip(&other.words).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// Removes all members of another set.
    pub fn remove_all(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(mine, theirs)| *mine &= !theirs);
    }

    /// The numbers below `count` that are not in it.
    #[must_use]
    pub fn others(&self, count: u64) -> Self {
        let mut all = Self::sized(count);
        all.add_range(0..count);
        all.remove_all(self);
        all
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// How many are in it.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The members as ranges, from the lowest up, each as long as can be.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, true)?;
            let end = self.next(start, false).unwrap_or(self.words.len() as u64 * 64);
            at = end;
            Some(start..end)
        })
    }

    /// The members, from the lowest up.
    pub fn iter(&self) -> impl Iterator<Item = Ordinal> + '_ {
        self.ranges().flatten().map(Ordinal)
    }

    /// The first number from `at` on that is in it, or is not.
    fn next(&self, mut at: u64, member: bool) -> Option<u64> {
        while let Some(word) = self.words.get(at as usize / 64) {
            let word = if member { *word } else { !*word } >> (at % 64);
            if word != 0 {
                return Some(at + u64::from(word.trailing_zeros()));
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    fn make_room(&mut self, count: u64) {
        let words = count.div_ceil(64) as usize;
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }
}

impl PartialEq for Bits {
    /// Sets are equal when their members are, however much room they have.
    fn eq(&self, other: &Self) -> bool {
        let (short, long) = match self.words.len() < other.words.len() {
            true => (&self.words, &other.words),
            false => (&other.words, &self.words),
        };
        long.starts_with(short) && long[short.len()..].iter().all(|word| *word == 0)
    }
}

impl Eq for Bits {}

impl FromIterator<Ordinal> for Bits {
    fn from_iter<I: IntoIterator<Item = Ordinal>>(members: I) -> Self {
        let mut bits = Self::default();
        members.into_iter().for_each(|ordinal| bits.add(ordinal));
        bits
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(
            a in proptest::collection::btree_set(0u64..400, 0..60),
            b in proptest::collection::btree_set(0u64..300, 0..60),
            from in 0u64..300, len in 0u64..200, count in 0u64..500,
        ) {
            let bits = |set: &BTreeSet<u64>| set.iter().copied().map(Ordinal).collect::<Bits>();
            let plain = |bits: &Bits| bits.iter().map(|o| o.0).collect::<BTreeSet<u64>>();
            let (x, y) = (bits(&a), bits(&b));
            prop_assert_eq!(plain(&x), a.clone());
            prop_assert_eq!(x.count(), a.len() as u64);
            prop_assert_eq!(x.is_empty(), a.is_empty());
            prop_assert_eq!(x == y, a == b);
            let mut both = x.clone();
            both.add_all(&y);
            prop_assert_eq!(plain(&both), &a | &b);
            let mut rest = x.clone();
            rest.remove_all(&y);
            prop_assert_eq!(plain(&rest), &a - &b);
            let mut more = x.clone();
            more.add_range(from..from + len);
            prop_assert_eq!(plain(&more), &a | &(from..from + len).collect());
            prop_assert_eq!(plain(&x.others(count)), &(0..count).collect() - &a);
            let mut again = Bits::default();
            let ranges: Vec<Range<u64>> = more.ranges().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            ranges.into_iter().for_each(|range| again.add_range(range));
            prop_assert_eq!(again, more);
            for n in 0..400 {
                prop_assert_eq!(x.has(Ordinal(n)), a.contains(&n));
                prop_assert_eq!(x.clone().remove(Ordinal(n)), a.contains(&n));
            }
        }
    }
}
