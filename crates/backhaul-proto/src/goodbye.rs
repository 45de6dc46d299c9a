//! The last word of an agent.

use crate::{end, wire};

/// How an agent leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goodbye {
    /// It has what it came for.
    Done,
    /// It could not go on, and says why.
    Failed(String),
    /// Somebody there has ended it, and says how: nothing is wrong, and it does not go on by itself.
    CutShort(String),
}

impl From<Goodbye> for wire::End {
    fn from(goodbye: Goodbye) -> Self {
        let (code, text) = match goodbye {
            Goodbye::Done => (end::DONE, String::new()),
            Goodbye::Failed(why) => (end::AGENT, why),
            Goodbye::CutShort(how) => (end::CUT_SHORT, how),
        };
        Self { code, text, ..Default::default() }
    }
}

impl From<wire::End> for Goodbye {
    fn from(end: wire::End) -> Self {
        match end.code {
            end::DONE => Self::Done,
            end::CUT_SHORT => Self::CutShort(end.text),
            _ => Self::Failed(end.text),
        }
    }
}
