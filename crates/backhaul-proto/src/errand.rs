//! A restore that an operator orders from a client's agent: what is heard of it.

use crate::wire::{self, frame::Body};

/// From the agent to the server, and from there to whoever ordered it.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It begins, or why it does not.
    Answer(wire::RestoreAnswer),
    /// How far it is.
    Progress(wire::RestoreProgress),
    /// What it came to.
    Result(Box<wire::RestoreResult>),
}

impl News {
    /// It does not begin.
    pub fn refusal(why: impl Into<String>) -> Self {
        Self::Answer(wire::RestoreAnswer { refusal: why.into() })
    }

    /// It ended before its end.
    pub fn failure(why: impl Into<String>) -> Self {
        Self::Result(Box::new(wire::RestoreResult { failure: why.into(), ..Default::default() }))
    }

    pub(crate) fn body(self) -> Body {
        match self {
            Self::Answer(answer) => Body::RestoreAnswer(answer),
            Self::Progress(progress) => Body::RestoreProgress(progress),
            Self::Result(result) => Body::RestoreResult(*result),
        }
    }

    /// The same, from a frame, if it is of that.
    pub(crate) fn of(body: Body) -> Option<Self> {
        match body {
            Body::RestoreAnswer(answer) => Some(Self::Answer(answer)),
            Body::RestoreProgress(progress) => Some(Self::Progress(progress)),
            Body::RestoreResult(result) => Some(Self::Result(Box::new(result))),
            _ => None,
        }
    }
}
