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

/// Levenshtein distance of bytes, letter case aside.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let substituted = diagonal + usize::from(!x.eq_ignore_ascii_case(y));
            diagonal = *cell;
            left = substituted.min(*cell + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("A", "a", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
    }
}
