//! An agent that attends: it says how it stands, hears when a run is due, and is nudged. No run goes over this session,
//! and no key: it may stay open for days.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::agent::{ended, versioned};
use crate::wire::{self, frame::Body};
use crate::{PROTOCOL, SessionError, end, frame};

/// What a frame from the server means.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The server let us in.
    Welcome(Box<wire::Welcome>),
    /// When the next run is due, and how we stand.
    Verdict(wire::Verdict),
    /// We are to ask for a run.
    Nudged(wire::Nudge),
    /// What the policy asks of us.
    Terms(wire::Terms),
    /// We are to come for a restore, and show this.
    Errand(Bytes),
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Open,
    Done,
}

/// The agent's half. Order of calls as in [`crate::agent::AgentSession`].
pub struct AttendSession {
    phase: Phase,
    out: VecDeque<wire::Frame>,
}

impl AttendSession {
    /// Starts with a hello: versions and intent are filled in.
    pub fn new(hello: wire::Hello) -> Self {
        let hello = versioned(wire::Hello { intent: wire::Intent::Attend.into(), ..hello });
        Self { phase: Phase::Greeting, out: VecDeque::from([frame(Body::Hello(hello))]) }
    }

    /// The next frame to send.
    pub fn poll(&mut self) -> Option<wire::Frame> {
        self.out.pop_front()
    }

    /// Says how the machine stands now.
    pub fn report(&mut self, report: wire::Report) {
        self.out.push_back(frame(Body::Report(report)));
    }

    /// Says that a run that is due will not be asked for.
    pub fn not_now(&mut self, not_now: wire::NotNow) {
        self.out.push_back(frame(Body::NotNow(not_now)));
    }

    /// Answers a nudge.
    pub fn reply(&mut self, reply: wire::NudgeReply) {
        self.out.push_back(frame(Body::NudgeReply(reply)));
    }

    /// Says which terms are kept to.
    pub fn applied(&mut self, applied: wire::Applied) {
        self.out.push_back(frame(Body::Applied(applied)));
    }

    /// Says goodbye.
    pub fn close(&mut self) {
        self.phase = Phase::Done;
        self.out.push_back(frame(Body::End(wire::End { code: end::DONE, ..Default::default() })));
    }

    /// Takes a frame from the server.
    ///
    /// # Errors
    /// The frame was out of turn, or ended the session.
    pub fn handle(&mut self, frame: wire::Frame) -> Result<Event, SessionError> {
        let body = frame.body.ok_or(SessionError::Protocol("unknown frame"))?;
        match (body, &self.phase) {
            (Body::End(end), _) => {
                self.phase = Phase::Done;
                Err(ended(end))
            }
            (Body::Welcome(welcome), Phase::Greeting) if welcome.protocol == PROTOCOL => {
                self.phase = Phase::Open;
                Ok(Event::Welcome(Box::new(welcome)))
            }
            (Body::Welcome(welcome), Phase::Greeting) => {
                let (min, max) = (welcome.protocol, welcome.protocol);
                Err(SessionError::Version { ours: PROTOCOL, min, max })
            }
            (Body::Verdict(verdict), Phase::Open) => Ok(Event::Verdict(verdict)),
            (Body::Nudge(nudge), Phase::Open) => Ok(Event::Nudged(nudge)),
            (Body::Terms(terms), Phase::Open) => Ok(Event::Terms(terms)),
            (Body::RestoreOrder(order), Phase::Open) => Ok(Event::Errand(order.token)),
            _ => Err(SessionError::Protocol("frame out of turn")),
        }
    }
}
