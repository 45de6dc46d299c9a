//! What the sink is asked while files come, in path order: first what it lacks; then, of what it lacks, what was in its place before.
//!
//! Several batches are under way, so that a long line costs one round trip in all and not one for each.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::Duration;

use backhaul_object::Object;
use backhaul_object::patch::BASES_MAX;
use backhaul_object::source::{Answer, Answers, Kin, ObjectSink, Query, Signatures, TransferError};

use super::drafts::{Draft, Drafts};
use super::events::{Event, Found};
use super::former::Kinship;
use super::{BackupError, Patches, VaultParameters};

/// Questions in one batch.
const BATCH_MAX: usize = 2_048;
/// The most of them that come at once: about a chunk and what it may be a patch of.
const AT_ONCE: usize = 1 + BASES_MAX;
/// Bytes of content that one batch may hold back until its answers are there.
pub(super) const BATCH_BYTES: usize = 3 << 20;
/// Bytes and events of the batches whose answers are awaited: so much goes in one round trip of the line.
const AWAITED_BYTES: usize = 9 << 20;
const AWAITED_EVENTS: usize = 32_768;

/// Events whose questions are answered.
pub(super) struct Answered {
    pub(super) events: Vec<Event>,
    /// Of each content among them, in order.
    pub(super) verdicts: Vec<Verdict>,
    /// Objects that were durable when they were asked for.
    pub(super) durable: u64,
}

/// What is known of a content.
pub(super) struct Verdict {
    pub(super) answer: Answer,
    /// It as a patch of what is there.
    pub(super) patch: Option<Object>,
}

/// A batch on its way.
struct Batch {
    events: Vec<Event>,
    /// Bytes that they hold.
    held: usize,
    durable: u64,
}

/// A batch of which is asked what was there before.
struct Signing {
    batch: Batch,
    verdicts: Vec<Verdict>,
    /// Which spots are of each content.
    spots: Vec<Range<usize>>,
    signatures: Described,
}

/// What is there is like, as far as that is known.
enum Described {
    Coming(Signatures),
    Known(Vec<Kin>),
}

impl Described {
    /// Whether it is known by now. Nothing is known of it where nobody will tell.
    fn is_known(&mut self) -> bool {
        if let Self::Coming(signatures) = self {
            match signatures.try_recv() {
                Ok(kin) => *self = Self::Known(kin),
                Err(TryRecvError::Disconnected) => *self = Self::Known(Vec::new()),
                Err(TryRecvError::Empty) => return false,
            }
        }
        true
    }

    fn wait(self) -> Vec<Kin> {
        match self {
            Self::Coming(signatures) => signatures.recv().unwrap_or_default(),
            Self::Known(kin) => kin,
        }
    }
}

pub(super) struct Questions<'a> {
    sink: &'a dyn ObjectSink,
    drafts: Option<&'a Drafts>,
    kinship: Option<Kinship>,
    events: Vec<Event>,
    queries: Vec<Query>,
    held: usize,
    asked: VecDeque<(Batch, Option<Answers>)>,
    signing: VecDeque<Signing>,
    /// Bytes and events of both.
    awaited: (usize, usize),
}

impl<'a> Questions<'a> {
    pub(super) fn new(
        parameters: &VaultParameters,
        sink: &'a dyn ObjectSink,
        drafts: Option<&'a Drafts>,
    ) -> Self {
        let is_helped = parameters.patches == Patches::Helped;
        Self {
            sink,
            drafts,
            kinship: is_helped.then(|| Kinship::new(&parameters.chunker_key)).flatten(),
            events: Vec::new(),
            queries: Vec::new(),
            held: 0,
            asked: VecDeque::new(),
            signing: VecDeque::new(),
            awaited: (0, 0),
        }
    }

    /// An event comes, which holds so many bytes.
    pub(super) fn push(&mut self, event: Event, bytes: usize) {
        self.held += bytes;
        self.events.push(event);
    }

    /// A content comes.
    pub(super) fn content(&mut self, found: Found) {
        self.queries.push(Query { id: found.id, proof: found.proof });
        let mut bytes = found.content.len();
        if let Some(draft) = &found.draft {
            bytes += draft.payload.len();
            self.queries.extend_from_slice(&draft.bases);
        }
        self.push(Event::Content(found), bytes);
    }

    /// True when the batch is to be asked about.
    pub(super) fn is_full(&self, events_max: usize) -> bool {
        let many = self.queries.len() > BATCH_MAX - AT_ONCE || self.held >= BATCH_BYTES;
        many || self.events.len() >= events_max
    }

    /// Closes the current batch and asks about it.
    pub(super) fn ask(&mut self) -> Result<(), BackupError> {
        // The next batch is about as large.
        let next = (Vec::with_capacity(self.queries.len()), Vec::with_capacity(self.events.len()));
        let queries = std::mem::replace(&mut self.queries, next.0);
        let events = std::mem::replace(&mut self.events, next.1);
        let batch = Batch { events, held: std::mem::take(&mut self.held), durable: self.sink.durable() };
        self.awaited.0 += batch.held;
        self.awaited.1 += batch.events.len();
        let answers = if queries.is_empty() { None } else { Some(self.sink.ask(queries)?) };
        self.asked.push_back((batch, answers));
        self.go_on();
        Ok(())
    }

    /// True when so much is under way that nothing more may be before the oldest batch is answered.
    pub(super) fn is_overdue(&self) -> bool {
        self.awaited.0 > AWAITED_BYTES || self.awaited.1 > AWAITED_EVENTS
    }

    /// Waits for what is lacking of the oldest batch, so long at most. False when it is not known by then.
    pub(super) fn is_known_within(&mut self, time: Duration) -> bool {
        self.go_on();
        let oldest = self.asked.front().filter(|_| self.signing.is_empty());
        let Some((_, Some(answers))) = oldest else { return true };
        match answers.recv_timeout(time) {
            Ok(answers) => {
                if let Some((batch, _)) = self.asked.pop_front() {
                    self.settle(batch, answers);
                }
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            // Whoever takes it hears why.
            Err(RecvTimeoutError::Disconnected) => true,
        }
    }

    /// The oldest batch, if nothing of it has to be waited for.
    pub(super) fn settled(&mut self) -> Option<Answered> {
        self.go_on();
        let is_known = self.signing.front_mut().is_some_and(|signing| signing.signatures.is_known());
        let signing = if is_known { self.signing.pop_front() } else { None };
        signing.map(|signing| self.finish(signing))
    }

    /// The oldest batch, when it is answered; nothing when there is none.
    pub(super) fn oldest(&mut self) -> Result<Option<Answered>, BackupError> {
        self.go_on();
        if self.signing.is_empty() {
            let Some((batch, answers)) = self.asked.pop_front() else { return Ok(None) };
            let answers = answers.map(|answers| answers.recv().map_err(|_| self.lost())).transpose()?;
            self.settle(batch, answers.unwrap_or_default());
        }
        Ok(self.signing.pop_front().map(|signing| self.finish(signing)))
    }

    /// What is answered already has its next question asked.
    fn go_on(&mut self) {
        while let Some((_, answers)) = self.asked.front() {
            let answers = match answers.as_ref().map(|answers| answers.try_recv()) {
                None => Vec::new(),
                Some(Ok(answers)) => answers,
                Some(Err(_)) => return,
            };
            let Some((batch, _)) = self.asked.pop_front() else { return };
            self.settle(batch, answers);
        }
    }

    /// What is lacking is known: what was there before is asked for.
    fn settle(&mut self, mut batch: Batch, answers: Vec<Answer>) {
        let (mut verdicts, mut asked, mut spots) = (Vec::new(), Vec::new(), Vec::new());
        let mut answers = answers.into_iter();
        for event in &mut batch.events {
            let Event::Content(found) = event else { continue };
            let answer = answers.next().unwrap_or(Answer::Want);
            let draft = found.draft.take();
            let bases = draft.as_ref().map_or(0, |draft| draft.bases.len());
            let there = answers.by_ref().take(bases).filter(|base| *base == Answer::Have).count();
            let draft = draft.filter(|draft| there == bases || self.forsake(draft));
            let is_new = answer == Answer::Want && draft.is_none();
            let before = asked.len();
            if self.kinship.is_some() && is_new && Kinship::is_worth_it(found.content.len(), found.whole) {
                let room = BATCH_MAX - before;
                asked.extend(found.former.drain(..).take(room));
            }
            spots.push(before..asked.len());
            verdicts.push(Verdict { answer, patch: draft.map(|draft| draft.into_patch()) });
        }
        let signatures = match asked.is_empty() {
            true => Described::Known(Vec::new()),
            false => Described::Coming(self.sink.sign(asked)),
        };
        self.signing.push_back(Signing { batch, verdicts, spots, signatures });
    }

    /// The sink does not have what a draft builds on: it is not used.
    fn forsake(&self, draft: &Draft) -> bool {
        self.drafts.inspect(|drafts| drafts.forsake(&draft.of));
        false
    }

    /// What is described is made a patch of that; what is not is sent whole.
    fn finish(&mut self, signing: Signing) -> Answered {
        let Signing { batch: Batch { events, held, durable }, mut verdicts, spots, signatures } = signing;
        self.awaited.0 -= held;
        self.awaited.1 -= events.len();
        let kin = signatures.wait();
        if let Some(kinship) = self.kinship.as_mut().filter(|_| !kin.is_empty()) {
            let contents = events.iter().filter_map(|event| match event {
                Event::Content(found) => Some(found),
                _ => None,
            });
            for ((found, verdict), spots) in contents.zip(&mut verdicts).zip(spots) {
                let kin = within(&kin, &spots);
                if !kin.is_empty() {
                    verdict.patch = kinship.patch(found, kin);
                }
            }
        }
        Answered { events, verdicts, durable }
    }

    fn lost(&self) -> TransferError {
        let lost = TransferError::Lost("the session ended before it answered".to_owned());
        self.sink.failure().unwrap_or(lost)
    }
}

/// What is of these spots; all is in their order.
fn within<'k>(kin: &'k [Kin], spots: &Range<usize>) -> &'k [Kin] {
    let place = |spot| kin.partition_point(|one| one.of < spot);
    &kin[place(spots.start)..place(spots.end)]
}
