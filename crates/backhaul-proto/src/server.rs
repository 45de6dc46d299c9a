//! The side that has the vault: welcomes, answers, acknowledges, commits, serves reads.

use std::collections::{HashMap, VecDeque};

use backhaul_object::breach::Breach;
use backhaul_object::header::MEMBERS_MAX;
use backhaul_object::ids::{ObjectId, Proof, ShortId};
use backhaul_object::source::{Answer, Kin, Spot};
use backhaul_object::{FormatError, Reference};
use bytes::Bytes;

use crate::agent::split_proofs;
use crate::errand::News;
use crate::goodbye::Goodbye;
use crate::wire::{self, frame::Body};
use crate::{
    BATCH_MAX, BATCHES_IN_FLIGHT_MAX, PROTOCOL, READ_MAX, Retry, SessionError, arranging, frame, signing,
};

/// Bytes of snapshot rows in one frame; a single row is smaller than what is left of a frame.
const PAGE_BYTES: usize = 256 << 10;
/// What a row takes besides its manifest, at most.
const ROW_BYTES: usize = 512;

/// What a frame from the agent asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// It introduced itself.
    Hello(Box<wire::Hello>),
    /// Which of these prefixes are there?
    Ask(u64, Vec<u64>),
    /// It shows that it has these.
    Prove(u64, Vec<(ObjectId, Proof)>),
    /// What are these contents like?
    Sign(u64, Vec<Spot>),
    /// In which order do these objects lie?
    Arrange(Vec<ObjectId>),
    /// Make the snapshot.
    Commit(wire::Commit),
    /// List the snapshots.
    List(wire::List),
    /// Send these objects.
    Read(Vec<Reference>),
    /// Figures.
    Stats,
    /// Have another client restore something.
    Order(Box<wire::RestoreOrder>),
    /// Of the restore that the session is for.
    News(News),
    /// How an attending machine stands now.
    Report(wire::Report),
    /// It does not want a run now.
    NotNow(wire::NotNow),
    /// It has heard a nudge.
    NudgeReply(wire::NudgeReply),
    /// It keeps to these terms.
    Applied(wire::Applied),
    /// It is done, or has failed and says why.
    Bye(Goodbye),
}

/// One decided answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not there.
    Want,
    /// There, as this, and the asker's: the content of this id.
    Known(Answer, ShortId),
    /// There, but not yet the asker's: it must show possession.
    Prove,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Welcoming,
    Attending,
    /// A nudge was sent instead of a welcome.
    Nudging,
    Open,
    Committing,
}

/// The server's half of a session.
pub struct ServerSession {
    phase: Phase,
    granted: bool,
    /// Open batches: how many answers are due.
    batches: HashMap<u64, usize>,
    durable: u64,
    out: VecDeque<wire::Frame>,
}

impl Default for ServerSession {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerSession {
    /// Waits for a hello.
    pub fn new() -> Self {
        Self {
            phase: Phase::Greeting,
            granted: false,
            batches: HashMap::new(),
            durable: 0,
            out: VecDeque::new(),
        }
    }

    /// The next frame to send.
    pub fn poll(&mut self) -> Option<wire::Frame> {
        let frame = self.out.pop_front();
        if self.out.is_empty() {
            // A link stands for days with nothing to say: its queue is not to hold on to its room.
            self.out = VecDeque::new();
        }
        frame
    }

    /// Takes a frame from the agent.
    ///
    /// # Errors
    /// The frame was out of turn or over a limit; tell the peer with [`SessionError::to_end`].
    pub fn handle(&mut self, frame: wire::Frame) -> Result<Request, SessionError> {
        let body = frame.body.ok_or(SessionError::Protocol("unknown frame"))?;
        match (body, &self.phase) {
            (Body::End(done), _) => Ok(Request::Bye(done.into())),
            (Body::Hello(hello), Phase::Greeting) => {
                let (min, max) = (hello.protocol_min, hello.protocol_max);
                if min > PROTOCOL || max < PROTOCOL {
                    return Err(SessionError::Version { ours: PROTOCOL, min, max });
                }
                self.phase = Phase::Welcoming;
                Ok(Request::Hello(Box::new(hello)))
            }
            (Body::NudgeReply(reply), Phase::Attending | Phase::Nudging) => Ok(Request::NudgeReply(reply)),
            (Body::Report(report), Phase::Attending | Phase::Open | Phase::Committing) => {
                Ok(Request::Report(report))
            }
            (Body::NotNow(not_now), Phase::Attending) => Ok(Request::NotNow(not_now)),
            (Body::Applied(applied), Phase::Attending | Phase::Open | Phase::Committing) => {
                Ok(Request::Applied(applied))
            }
            (_, Phase::Attending | Phase::Nudging) => Err(SessionError::Protocol("frame out of turn")),
            (_, Phase::Greeting | Phase::Welcoming) => Err(SessionError::Protocol("expected a hello")),
            (Body::Ask(ask), Phase::Open) if self.granted => self.on_ask(&ask),
            (Body::Prove(prove), Phase::Open) if self.granted => {
                let items = split_proofs(&prove.proofs)?;
                if self.batches.get(&prove.batch) != Some(&items.len()) {
                    return Err(SessionError::Protocol("proofs that were not asked for"));
                }
                Ok(Request::Prove(prove.batch, items))
            }
            (Body::Sign(sign), Phase::Open) if self.granted => {
                Ok(Request::Sign(sign.batch, signing::spots(&sign)?))
            }
            (Body::Commit(commit), Phase::Open) if self.granted && self.batches.is_empty() => {
                self.phase = Phase::Committing;
                Ok(Request::Commit(commit))
            }
            (Body::List(list), _) => Ok(Request::List(list)),
            (Body::Stats(_), _) => Ok(Request::Stats),
            (Body::Read(read), _) => on_read(&read),
            (Body::Arrange(arrange), Phase::Open) => Ok(Request::Arrange(arranging::ids(&arrange)?)),
            (Body::RestoreOrder(order), Phase::Open) if !self.granted => Ok(Request::Order(Box::new(order))),
            (body, Phase::Open) if !self.granted => {
                News::of(body).map(Request::News).ok_or(SessionError::Protocol("frame out of turn"))
            }
            _ => Err(SessionError::Protocol("frame out of turn")),
        }
    }

    fn on_ask(&mut self, ask: &wire::Ask) -> Result<Request, SessionError> {
        let (prefixes, rest) = ask.prefixes.as_chunks::<8>();
        let few = prefixes.len() <= BATCH_MAX || Breach::Unlimited.is_on();
        let fits = rest.is_empty() && few && !prefixes.is_empty();
        if !fits || self.batches.len() >= BATCHES_IN_FLIGHT_MAX || self.batches.contains_key(&ask.batch) {
            return Err(SessionError::Protocol("malformed or too many questions"));
        }
        self.batches.insert(ask.batch, prefixes.len());
        Ok(Request::Ask(ask.batch, prefixes.iter().map(|p| u64::from_le_bytes(*p)).collect()))
    }

    /// Lets the agent in.
    pub fn welcome(&mut self, welcome: wire::Welcome) {
        self.phase = Phase::Open;
        self.granted = welcome.grant.is_some();
        self.out.push_back(frame(Body::Welcome(welcome)));
    }

    /// Lets an agent in that attends.
    pub fn attend(&mut self, welcome: wire::Welcome) {
        self.phase = Phase::Attending;
        self.out.push_back(frame(Body::Welcome(welcome)));
    }

    /// Tells an agent that wants a run where it stands.
    pub fn queued(&mut self, queued: wire::Queued) {
        self.out.push_back(frame(Body::Queued(queued)));
    }

    /// Tells an attending agent when its next run is due.
    pub fn verdict(&mut self, verdict: wire::Verdict) {
        self.out.push_back(frame(Body::Verdict(verdict)));
    }

    /// Nudges an attending agent, or one that was dialled for nothing else.
    pub fn nudge(&mut self, nudge: wire::Nudge) {
        if self.phase == Phase::Welcoming {
            self.phase = Phase::Nudging;
        }
        self.out.push_back(frame(Body::Nudge(nudge)));
    }

    /// Tells an attending agent what its policy asks of it.
    pub fn terms(&mut self, terms: wire::Terms) {
        self.out.push_back(frame(Body::Terms(terms)));
    }

    /// Tells an attending agent to come for a restore.
    pub fn errand(&mut self, token: Bytes) {
        self.out.push_back(frame(Body::RestoreOrder(wire::RestoreOrder { token, ..Default::default() })));
    }

    /// Tells an operator what becomes of the restore that it ordered.
    pub fn news(&mut self, news: News) {
        self.out.push_back(frame(news.body()));
    }

    /// Answers a batch (or the part of it that had to be proven).
    pub fn answer(&mut self, batch: u64, verdicts: &[Verdict]) {
        let mut answers = wire::Answers { batch, ..Default::default() };
        let mut bundles: HashMap<ObjectId, u32> = HashMap::new();
        let mut codes = Vec::with_capacity(verdicts.len());
        for verdict in verdicts {
            codes.push(match verdict {
                Verdict::Want | Verdict::Known(Answer::Want, _) => 0,
                Verdict::Known(Answer::Have, _) => 1,
                Verdict::Prove => 2,
                Verdict::Known(Answer::Member { bundle, member }, _) => {
                    let next = bundles.len() as u32;
                    let place = *bundles.entry(*bundle).or_insert_with(|| {
                        answers.bundles.push(Bytes::copy_from_slice(bundle.as_bytes()));
                        next
                    });
                    answers.places.extend([place, u32::from(*member)]);
                    3
                }
            });
        }
        let known = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Known(Answer::Have | Answer::Member { .. }, id) => Some(id),
            _ => None,
        });
        answers.checks = known.flat_map(|id| id.check()).collect::<Vec<u8>>().into();
        match verdicts.iter().filter(|v| **v == Verdict::Prove).count() {
            0 => self.batches.remove(&batch),
            due => self.batches.insert(batch, due),
        };
        answers.codes = codes.into();
        self.out.push_back(frame(Body::Answers(answers)));
    }

    /// Says what the contents of a batch are like.
    pub fn signatures(&mut self, batch: u64, kin: &[Kin]) {
        self.out.push_back(frame(Body::Signatures(signing::answer(batch, kin))));
    }

    /// Says in which order the objects of the oldest such question lie.
    pub fn arranged(&mut self, order: Vec<u32>) {
        self.out.push_back(frame(Body::Arranged(wire::Arranged { order })));
    }

    /// Acknowledges; says nothing when nothing new is durable.
    pub fn durable(&mut self, objects: u64) {
        if objects > self.durable {
            self.durable = objects;
            self.out.push_back(frame(Body::Durable(wire::Durable { objects })));
        }
    }

    /// The snapshot exists.
    pub fn committed(&mut self, committed: wire::Committed) {
        self.phase = Phase::Open;
        self.granted = false;
        self.out.push_back(frame(Body::Committed(committed)));
    }

    /// The snapshot list.
    pub fn snapshots(&mut self, rows: Vec<wire::SnapshotRow>) {
        let (mut page, mut bytes) = (Vec::new(), 0);
        for row in rows {
            bytes += row.body.len() + row.header.len() + ROW_BYTES;
            page.push(row);
            if bytes >= PAGE_BYTES {
                let rows = std::mem::take(&mut page);
                self.out.push_back(frame(Body::Snapshots(wire::Snapshots { rows, more: true })));
                bytes = 0;
            }
        }
        self.out.push_back(frame(Body::Snapshots(wire::Snapshots { rows: page, more: false })));
    }

    /// The figures.
    pub fn stats(&mut self, stats: wire::VaultStats) {
        self.out.push_back(frame(Body::VaultStats(stats)));
    }

    /// Ends the session with a reason.
    pub fn end(&mut self, code: u32, text: &str, retry: Retry) {
        let Retry { after, ticket } = retry;
        self.out.push_back(frame(Body::End(wire::End { code, text: text.to_owned(), after, ticket })));
    }
}

fn on_read(read: &wire::Read) -> Result<Request, SessionError> {
    if read.ids.len() > READ_MAX {
        return Err(SessionError::Protocol("too many objects in one read"));
    }
    if !read.members.is_empty() && read.members.len() != read.ids.len() {
        return Err(SessionError::Protocol("members of other objects than are asked for"));
    }
    if read.members.iter().any(|members| members.len() > MEMBERS_MAX / 8) {
        return Err(SessionError::Protocol("more members than a bundle has"));
    }
    let members = read.members.iter().map(|members| members.to_vec()).chain(std::iter::repeat(Vec::new()));
    let one = |(id, members): (&Bytes, Vec<u8>)| Ok(Reference { id: ObjectId::try_from(&id[..])?, members });
    let wanted: Result<Vec<_>, FormatError> = read.ids.iter().zip(members).map(one).collect();
    wanted.map(Request::Read).map_err(|_| SessionError::Protocol("malformed object id"))
}
