//! The side that has files: says hello, asks, counts what it sent, commits, reads.

use std::collections::{HashMap, VecDeque};

use backhaul_object::Reference;
use backhaul_object::ids::{ObjectId, Proof};
use backhaul_object::source::{Answer, Kin, Query, Spot};
use bytes::Bytes;

use crate::errand::News;
use crate::goodbye::Goodbye;
use crate::pages::Pages;
use crate::wire::{self, frame::Body};
use crate::{BATCH_MAX, BATCHES_IN_FLIGHT_MAX, PROTOCOL, Retry, SessionError, arranging, frame, signing};

/// What a frame from the server means.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The server let us in.
    Welcome(Box<wire::Welcome>),
    /// It will let us in; this is where we stand.
    Queued(wire::Queued),
    /// It does not want a session: we are to come by ourselves.
    Nudged(wire::Nudge),
    /// The final answers to a batch.
    Answers(u64, Vec<Answer>),
    /// What the contents of a batch are like.
    Signatures(u64, Vec<Kin>),
    /// The order in which the objects of the oldest such question lie.
    Arranged(Vec<usize>),
    /// So many objects are durable.
    Durable(u64),
    /// The snapshot exists.
    Committed(wire::Committed),
    /// The caller's snapshots.
    Snapshots(Vec<wire::SnapshotRow>),
    /// Vault figures.
    Stats(wire::VaultStats),
    /// Of the restore that was ordered.
    News(News),
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Open,
    Committing,
    Done,
}

struct Batch {
    queries: Vec<Query>,
    answers: Vec<Option<Answer>>,
}

/// The agent's half of a session. Order of calls: `new`, send what `poll` yields, `handle` what arrives.
pub struct AgentSession {
    phase: Phase,
    granted: bool,
    next_batch: u64,
    batches: HashMap<u64, Batch>,
    /// Contents in questions about what they are like.
    signing: HashMap<u64, usize>,
    /// Objects in questions in which order they lie, the oldest first.
    arranging: VecDeque<usize>,
    durable: u64,
    lists: Pages,
    out: VecDeque<wire::Frame>,
}

impl AgentSession {
    /// Starts with a hello: versions and features are filled in.
    pub fn new(hello: wire::Hello) -> Self {
        Self {
            phase: Phase::Greeting,
            granted: false,
            next_batch: 0,
            batches: HashMap::new(),
            signing: HashMap::new(),
            arranging: VecDeque::new(),
            durable: 0,
            lists: Pages::default(),
            out: VecDeque::from([frame(Body::Hello(versioned(hello)))]),
        }
    }

    /// The next frame to send.
    pub fn poll(&mut self) -> Option<wire::Frame> {
        self.out.pop_front()
    }

    /// True when another batch may be asked.
    pub fn may_ask(&self) -> bool {
        self.batches.len() + self.signing.len() < BATCHES_IN_FLIGHT_MAX
    }

    /// True when no question is open.
    fn is_answered(&self) -> bool {
        self.batches.is_empty() && self.signing.is_empty()
    }

    /// The number of a batch of so many questions, if it may be asked.
    fn next_batch(&mut self, questions: usize) -> Result<u64, SessionError> {
        if self.phase != Phase::Open || !self.granted {
            return Err(SessionError::Protocol("asked without a grant"));
        }
        if questions > BATCH_MAX || !self.may_ask() {
            return Err(SessionError::Protocol("too many questions at once"));
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        Ok(batch)
    }

    /// Asks about at most [`BATCH_MAX`] contents; the answer carries the returned number.
    ///
    /// # Errors
    /// No grant, or a batch over the limits.
    pub fn ask(&mut self, queries: Vec<Query>) -> Result<u64, SessionError> {
        let batch = self.next_batch(queries.len())?;
        let prefixes: Vec<u8> = queries.iter().flat_map(|q| q.id.prefix().to_le_bytes()).collect();
        self.out.push_back(frame(Body::Ask(wire::Ask { batch, prefixes: prefixes.into() })));
        let answers = vec![None; queries.len()];
        self.batches.insert(batch, Batch { queries, answers });
        Ok(batch)
    }

    /// Asks what at most [`BATCH_MAX`] contents are like; the answer carries the returned number.
    ///
    /// # Errors
    /// As [`AgentSession::ask`].
    pub fn sign(&mut self, spots: &[Spot]) -> Result<u64, SessionError> {
        let batch = self.next_batch(spots.len())?;
        self.out.push_back(frame(Body::Sign(signing::question(batch, spots))));
        self.signing.insert(batch, spots.len());
        Ok(batch)
    }

    /// Ends a backup: so many objects were put on the data stream before this manifest.
    ///
    /// # Errors
    /// No grant, or questions still open.
    pub fn commit(&mut self, commit: wire::Commit) -> Result<(), SessionError> {
        if self.phase != Phase::Open || !self.granted || !self.is_answered() {
            return Err(SessionError::Protocol("commit out of turn"));
        }
        self.phase = Phase::Committing;
        self.out.push_back(frame(Body::Commit(commit)));
        Ok(())
    }

    /// Shows that the run goes on. Before the welcome there is nothing to show.
    pub fn heartbeat(&mut self) {
        if self.phase == Phase::Open && self.granted {
            self.out.push_back(frame(Body::Report(wire::Report::default())));
        }
    }

    /// Says which terms are kept to from now on.
    pub fn applied(&mut self, applied: wire::Applied) {
        self.out.push_back(frame(Body::Applied(applied)));
    }

    /// Asks for objects on the reply stream, of bundles for what is marked.
    pub fn read(&mut self, wanted: &[Reference]) {
        let ids = wanted.iter().map(|one| Bytes::copy_from_slice(one.id.as_bytes())).collect();
        let in_part = wanted.iter().any(|one| !one.members.is_empty());
        let members = wanted.iter().filter(|_| in_part).map(|one| Bytes::copy_from_slice(&one.members));
        self.out.push_back(frame(Body::Read(wire::Read { ids, members: members.collect() })));
    }

    /// Asks in which order at most [`ARRANGE_MAX`](crate::ARRANGE_MAX) objects lie; answers come in the order of the questions.
    pub fn arrange(&mut self, ids: &[ObjectId]) {
        self.arranging.push_back(ids.len());
        self.out.push_back(frame(Body::Arrange(arranging::question(ids))));
    }

    /// Asks for the snapshots.
    pub fn list(&mut self, list: wire::List) {
        self.lists.ask();
        self.out.push_back(frame(Body::List(list)));
    }

    /// Asks for the vault's figures.
    pub fn stats(&mut self) {
        self.out.push_back(frame(Body::Stats(wire::Stats {})));
    }

    /// An operator orders a restore from another client's agent.
    pub fn order(&mut self, order: wire::RestoreOrder) {
        self.out.push_back(frame(Body::RestoreOrder(order)));
    }

    /// Says what becomes of the restore that this session is for.
    pub fn news(&mut self, news: News) {
        self.out.push_back(frame(news.body()));
    }

    /// Says goodbye.
    pub fn close(&mut self, goodbye: Goodbye) {
        self.phase = Phase::Done;
        self.out.push_back(frame(Body::End(goodbye.into())));
    }

    /// Answers a nudge that came instead of a welcome.
    pub fn reply(&mut self, reply: wire::NudgeReply) {
        self.out.push_back(frame(Body::NudgeReply(reply)));
    }

    /// Takes a frame from the server.
    ///
    /// # Errors
    /// The frame was out of turn, or ended the session.
    pub fn handle(&mut self, frame: wire::Frame) -> Result<Option<Event>, SessionError> {
        let body = frame.body.ok_or(SessionError::Protocol("unknown frame"))?;
        if let Body::End(end) = body {
            self.phase = Phase::Done;
            return Err(ended(end));
        }
        match (body, &self.phase) {
            (Body::Welcome(welcome), Phase::Greeting) => self.on_welcome(welcome),
            (Body::Queued(queued), Phase::Greeting) => Ok(Some(Event::Queued(queued))),
            (Body::Nudge(nudge), Phase::Greeting) => Ok(Some(Event::Nudged(nudge))),
            (_, Phase::Greeting) => Err(SessionError::Protocol("expected a welcome")),
            (Body::Answers(answers), Phase::Open) => self.on_answers(answers),
            (Body::Signatures(signatures), Phase::Open) => {
                let batch = signatures.batch;
                let asked = self.signing.remove(&batch);
                let asked = asked.ok_or(SessionError::Protocol("signatures that nobody asked for"))?;
                Ok(Some(Event::Signatures(batch, signing::kin(signatures, asked)?)))
            }
            (Body::Arranged(arranged), Phase::Open) => {
                let asked = self.arranging.pop_front();
                let asked = asked.ok_or(SessionError::Protocol("an order that nobody asked for"))?;
                Ok(Some(Event::Arranged(arranging::order(&arranged, asked)?)))
            }
            (Body::Durable(durable), _) if durable.objects >= self.durable => {
                self.durable = durable.objects;
                Ok(Some(Event::Durable(durable.objects)))
            }
            (Body::Committed(committed), Phase::Committing) => {
                self.phase = Phase::Open;
                self.granted = false;
                Ok(Some(Event::Committed(committed)))
            }
            (Body::Snapshots(page), _) => Ok(self.lists.take(page)?.map(Event::Snapshots)),
            (Body::VaultStats(stats), _) => Ok(Some(Event::Stats(stats))),
            (body, Phase::Open) => match News::of(body) {
                Some(news) => Ok(Some(Event::News(news))),
                None => Err(SessionError::Protocol("frame out of turn")),
            },
            _ => Err(SessionError::Protocol("frame out of turn")),
        }
    }

    fn on_welcome(&mut self, welcome: wire::Welcome) -> Result<Option<Event>, SessionError> {
        if welcome.protocol != PROTOCOL {
            let (min, max) = (welcome.protocol, welcome.protocol);
            return Err(SessionError::Version { ours: PROTOCOL, min, max });
        }
        self.phase = Phase::Open;
        self.granted = welcome.grant.is_some();
        Ok(Some(Event::Welcome(Box::new(welcome))))
    }

    /// Fills in answers; queries answered "prove" go out again with full id and proof.
    fn on_answers(&mut self, answers: wire::Answers) -> Result<Option<Event>, SessionError> {
        let number = answers.batch;
        let mut batch =
            self.batches.remove(&number).ok_or(SessionError::Protocol("answers to no question"))?;
        let open: Vec<usize> = (0..batch.answers.len()).filter(|i| batch.answers[*i].is_none()).collect();
        if open.len() != answers.codes.len() {
            return Err(SessionError::Protocol("answers do not match the questions"));
        }
        let mut places = answers.places.as_chunks::<2>().0.iter();
        let mut checks = answers.checks.as_chunks::<8>().0.iter();
        let mut fits = |query: &Query| match checks.next() {
            Some(check) => Ok(*check == query.id.check()),
            None => Err(SessionError::Protocol("answer without a check")),
        };
        let mut proofs = Vec::new();
        for (slot, code) in open.into_iter().zip(answers.codes) {
            let query = &batch.queries[slot];
            batch.answers[slot] = match code {
                0 => Some(Answer::Want),
                1 if fits(query)? => Some(Answer::Have),
                1 => Some(Answer::Want),
                2 => {
                    proofs.extend_from_slice(query.id.as_bytes());
                    proofs.extend_from_slice(query.proof.as_bytes());
                    None
                }
                3 => {
                    let member = member(places.next(), &answers.bundles)?;
                    Some(if fits(query)? { member } else { Answer::Want })
                }
                _ => return Err(SessionError::Protocol("unknown answer")),
            };
        }
        if proofs.is_empty() {
            return Ok(Some(Event::Answers(number, batch.answers.into_iter().flatten().collect())));
        }
        self.out.push_back(frame(Body::Prove(wire::Prove { batch: number, proofs: proofs.into() })));
        self.batches.insert(number, batch);
        Ok(None)
    }
}

/// A hello with the versions that we speak.
pub(crate) fn versioned(hello: wire::Hello) -> wire::Hello {
    wire::Hello { protocol_min: PROTOCOL, protocol_max: PROTOCOL, ..hello }
}

/// The peer's goodbye as an error.
pub(crate) fn ended(end: wire::End) -> SessionError {
    let retry = Retry { after: end.after, ticket: end.ticket };
    SessionError::Ended { code: end.code, text: end.text, retry }
}

fn member(place: Option<&[u32; 2]>, bundles: &[Bytes]) -> Result<Answer, SessionError> {
    const WRONG: SessionError = SessionError::Protocol("member answer without a place");
    let [bundle, member] = *place.ok_or(WRONG)?;
    let id = bundles.get(bundle as usize).ok_or(WRONG)?;
    let bundle = ObjectId::try_from(&id[..]).map_err(|_| WRONG)?;
    Ok(Answer::Member { bundle, member: u16::try_from(member).map_err(|_| WRONG)? })
}

/// Splits the proofs of a [`wire::Prove`].
///
/// # Errors
/// A length that is no multiple of 48, or too many.
pub fn split_proofs(proofs: &[u8]) -> Result<Vec<(ObjectId, Proof)>, SessionError> {
    let (items, rest) = proofs.as_chunks::<48>();
    if !rest.is_empty() || items.len() > BATCH_MAX {
        return Err(SessionError::Protocol("malformed proofs"));
    }
    let split = |item: &[u8; 48]| {
        let (mut id, mut proof) = ([0; 32], [0; 16]);
        id.copy_from_slice(&item[..32]);
        proof.copy_from_slice(&item[32..]);
        (ObjectId(id), Proof(proof))
    };
    Ok(items.iter().map(split).collect())
}
