//! Names that look like a mistyped one.

/// Most names suggested.
const SUGGESTIONS: usize = 3;

/// Keeps the best few of the names offered.
pub(super) struct Nearest<'n> {
    wanted: &'n [u8],
    best: Vec<(usize, Vec<u8>)>,
}

impl<'n> Nearest<'n> {
    pub(super) fn new(wanted: &'n [u8]) -> Self {
        Self { wanted, best: Vec::new() }
    }

    pub(super) fn offer(&mut self, name: &[u8]) {
        let limit = (self.wanted.len() / 3).max(2);
        let mut distance = distance(self.wanted, name);
        if distance > limit && self.wanted.len() >= 2 && name.starts_with(self.wanted) {
            distance = limit;
        }
        if distance > limit || distance >= self.wanted.len().max(name.len()) {
            return;
        }
        let at = self.best.partition_point(|(other, _)| *other <= distance);
        if at < SUGGESTIONS {
            self.best.insert(at, (distance, name.to_vec()));
            self.best.truncate(SUGGESTIONS);
        }
    }

    pub(super) fn finish(self) -> Vec<Vec<u8>> {
        self.best.into_iter().map(|(_, name)| name).collect()
    }
}

/// How many bytes are to be inserted, removed, replaced or swapped with their neighbour to make one of the other, letter
/// case aside.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let same =
        |x: Option<&u8>, y: Option<&u8>| matches!((x, y), (Some(x), Some(y)) if x.eq_ignore_ascii_case(y));
    let before = |at: usize| at.checked_sub(1);
    let mut rows = [vec![0; b.len() + 1], vec![0; b.len() + 1], (0..=b.len()).collect::<Vec<usize>>()];
    for i in 0..a.len() {
        rows.rotate_left(1);
        let [older, old, new] = &mut rows;
        new[0] = i + 1;
        for j in 0..b.len() {
            let replaced = old[j] + usize::from(!same(a.get(i), b.get(j)));
            let mut least = replaced.min(old[j + 1] + 1).min(new[j] + 1);
            if let (Some(i1), Some(j1)) = (before(i), before(j))
                && same(a.get(i), b.get(j1))
                && same(a.get(i1), b.get(j))
            {
                least = least.min(older[j1] + 1);
            }
            new[j + 1] = least;
        }
    }
    rows[2].last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("kitten", "sitting", 3),
            ("A", "a", 0),
            ("ab", "ba", 1),
            ("ect", "etc", 1),
            ("abc", "", 3),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
    }
}
