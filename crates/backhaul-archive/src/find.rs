//! Finding names by pattern.
//!
//! `?` is one byte, `*` any run of bytes, `[a-z]` and `[!a-z]` a set; none of them matches `/`, which only
//! `**` does. A backslash takes the next byte literally. A pattern without `/` is held against the last
//! name of a path, one with `/` against the whole path.

use crate::browse::{BrowseError, Tree, Visit};

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
    whole_path: bool,
    rooted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    Run,
    Tree,
    Set { inverted: bool, ranges: Vec<(u8, u8)> },
}

impl Pattern {
    /// From its text. Every text is a pattern: an unclosed `[` stands for itself.
    pub fn new(text: &[u8]) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            tokens.push(match byte {
                b'?' => Token::Any,
                b'*' => {
                    let stars = rest.iter().take_while(|b| **b == b'*').count();
                    rest = rest.get(stars..).unwrap_or_default();
                    if stars > 0 { Token::Tree } else { Token::Run }
                }
                b'[' => match set(rest) {
                    Some((token, tail)) => {
                        rest = tail;
                        token
                    }
                    None => Token::Byte(b'['),
                },
                b'\\' => match rest.split_first() {
                    Some((&literal, tail)) => {
                        rest = tail;
                        Token::Byte(literal)
                    }
                    None => Token::Byte(b'\\'),
                },
                other => Token::Byte(other),
            });
        }
        Self { tokens, whole_path: text.contains(&b'/'), rooted: text.starts_with(b"/") }
    }

    /// Holds the pattern against a path.
    pub fn matches(&self, path: &[u8]) -> bool {
        let bare = path.strip_prefix(b"/").unwrap_or(path);
        if !self.whole_path {
            let name = bare.rsplit(|b| *b == b'/').next().unwrap_or(bare);
            return run(&self.tokens, name);
        }
        if self.rooted {
            run(self.tokens.get(1..).unwrap_or_default(), bare)
        } else {
            run(&self.tokens, bare)
        }
    }
}

/// Parses what follows a `[`.
fn set(text: &[u8]) -> Option<(Token, &[u8])> {
    let inverted = matches!(text.first(), Some(b'!' | b'^'));
    let mut at = usize::from(inverted);
    let first = at;
    let mut ranges = Vec::new();
    loop {
        let low = *text.get(at)?;
        if low == b']' && at > first {
            return Some((Token::Set { inverted, ranges }, text.get(at + 1..)?));
        }
        match (text.get(at + 1), text.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                ranges.push((low, high));
                at += 3;
            }
            _ => {
                ranges.push((low, low));
                at += 1;
            }
        }
    }
}

/// Matches with one point to come back to per kind of star: time is bounded by pattern × text for `*`.
fn run(tokens: &[Token], text: &[u8]) -> bool {
    // One bit of progress per token: which prefixes of the pattern match the text so far.
    let mut states = vec![false; tokens.len() + 1];
    let mut next = vec![false; tokens.len() + 1];
    start(tokens, &mut states);
    for &byte in text {
        next.fill(false);
        for (i, token) in tokens.iter().enumerate().filter(|(i, _)| states[*i]) {
            let slash = byte == b'/';
            match token {
                Token::Byte(wanted) if *wanted == byte => next[i + 1] = true,
                Token::Any if !slash => next[i + 1] = true,
                Token::Run if !slash => next[i] = true,
                Token::Tree => next[i] = true,
                Token::Set { inverted, ranges } if !slash => {
                    let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte));
                    next[i + 1] |= inside != *inverted;
                }
                _ => {}
            }
        }
        skip_stars(tokens, &mut next);
        std::mem::swap(&mut states, &mut next);
    }
    states.last().copied().unwrap_or(false)
}

fn start(tokens: &[Token], states: &mut [bool]) {
    if let Some(first) = states.first_mut() {
        *first = true;
    }
    skip_stars(tokens, states);
}

/// A star may stand for nothing.
fn skip_stars(tokens: &[Token], states: &mut [bool]) {
    for (i, token) in tokens.iter().enumerate() {
        if states[i] && matches!(token, Token::Run | Token::Tree) {
            states[i + 1] = true;
        }
    }
}

/// Walks everything below `under` and hands what matches to `visit`, in path order.
///
/// # Errors
/// As [`Tree::walk`].
pub fn find(
    tree: &Tree<'_>,
    under: &[u8],
    pattern: &Pattern,
    visit: &mut Visit<'_>,
) -> Result<(), BrowseError> {
    tree.walk(under, &mut |path, entry| if pattern.matches(path) { visit(path, entry) } else { Ok(()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let cases: [(&str, &[u8], bool); 26] = [
            ("*.rs", b"/src/lib.rs", true),
            ("*.rs", b"/src/lib.rss", false),
            ("lib", b"/src/lib.rs", false),
            ("???", b"/a/abc", true),
            ("???", b"/a/ab", false),
            ("[a-c]x", b"bx", true),
            ("[!a-c]x", b"bx", false),
            ("[^a-c]x", b"zx", true),
            ("[]]", b"]", true),
            ("[a-]", b"-", true),
            ("[abc", b"[abc", true),
            ("a*b*c", b"axxbyyc", true),
            ("a*b*c", b"axxbyy", false),
            ("*", b"/home/x", true),
            ("", b"", true),
            ("\\*", b"*", true),
            ("\\*", b"x", false),
            ("/home/*/x", b"/home/ana/x", true),
            ("/home/*/x", b"/home/ana/b/x", false),
            ("home/*/x", b"/home/ana/x", true),
            ("ana/x", b"/home/ana/x", false),
            ("**/x", b"/home/ana/x", true),
            ("/home/**", b"/home/ana/b/x", true),
            ("*\\", b"a\\", true),
            ("*.txt", b"\xff\xfe.txt", true),
            ("?", b"\xff", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Pattern::new(pattern.as_bytes()).matches(path), expected, "{pattern} {path:?}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = Pattern::new("*a".repeat(40).as_bytes());
        assert!(!pattern.matches("a".repeat(39).as_bytes()));
        assert!(!pattern.matches(format!("{}b", "a".repeat(250)).as_bytes()));
    }
}
