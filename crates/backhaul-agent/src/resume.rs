//! A sink that outlives its connection: after a cut it dials again, sends again what was not yet durable, asks
//! again what was not yet answered, and the run goes on where it was.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use backhaul_object::Compressed;
use backhaul_object::source::{Answer, Answers, ObjectSink, Query, Signatures, Spot, TransferError};

use crate::clock::Stopwatch;
use crate::error::AgentError;
use crate::remote::Remote;

/// How long a lost server is looked for.
const PATIENCE_MS: u64 = 180_000;
/// Pauses between tries.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(10);
/// Bytes that are held to be sent again. What is beyond must become durable first.
const HELD_MAX: usize = 20 << 20;
/// How often a full sink looks whether something has become durable.
const LOOK: Duration = Duration::from_millis(2);

/// Opens a new session; called from a thread that may wait.
pub type Redial = dyn Fn() -> Result<Remote, AgentError> + Send + Sync;

/// What was put and is not known to be durable.
#[derive(Default)]
struct Held {
    objects: VecDeque<Compressed>,
    bytes: usize,
    /// Objects dropped from `objects` in this session, because they are durable.
    dropped: u64,
}

/// A question whose answer has not been passed on.
struct Open {
    queries: Vec<Query>,
    answers: Answers,
    session: u64,
    reply: Sender<Vec<Answer>>,
}

/// The session that is open now.
#[derive(Clone)]
struct Session {
    /// 0, 1, 2, … in one run.
    number: u64,
    /// Objects that became durable in the sessions before.
    base: u64,
    remote: Arc<Remote>,
}

/// The sink of one run.
pub struct Resuming {
    current: RwLock<Session>,
    held: Mutex<Held>,
    questions: Mutex<Option<Sender<Open>>>,
    redial: Box<Redial>,
}

impl Resuming {
    /// Begins with an open session.
    pub fn new(remote: Remote, redial: Box<Redial>) -> Arc<Self> {
        let (questions, open) = channel();
        let resuming = Arc::new(Self {
            current: RwLock::new(Session { number: 0, base: 0, remote: Arc::new(remote) }),
            held: Mutex::default(),
            questions: Mutex::new(Some(questions)),
            redial,
        });
        let forwarder = Arc::downgrade(&resuming);
        std::thread::spawn(move || forward(&open, &forwarder));
        resuming
    }

    /// The session that is open now.
    pub fn remote(&self) -> Arc<Remote> {
        self.session().remote
    }

    /// True when the open session is not the first one.
    pub fn redialled(&self) -> bool {
        self.session().number > 0
    }

    /// Gives the open session back; nothing is sent after this.
    pub fn finish(self: Arc<Self>) -> Option<Remote> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take();
        let remote = self.remote();
        // The forwarder holds the sink only while it works on a question, and there are none any more.
        let mut sink = Some(self);
        let whole = loop {
            match Arc::try_unwrap(sink.take()?) {
                Ok(whole) => break whole,
                Err(shared) => sink = Some(shared),
            }
            std::thread::sleep(LOOK);
        };
        drop(remote);
        Arc::into_inner(whole.current.into_inner().unwrap_or_else(PoisonError::into_inner).remote)
    }

    fn session(&self) -> Session {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Dials again, unless somebody has done so since session number `lost`.
    fn resume(&self, held: &mut Held, lost: u64, why: TransferError) -> Result<(), TransferError> {
        let old = self.session();
        if old.number != lost {
            return Ok(());
        }
        if !matches!(why, TransferError::Lost(_)) {
            return Err(why);
        }
        tracing::warn!("{why}; looking for the server");
        held.forget(old.remote.durable());
        let (watch, mut pause) = (Stopwatch::start(), *PAUSE.start());
        loop {
            std::thread::sleep(pause);
            pause = (pause * 2).min(*PAUSE.end());
            match (self.redial)() {
                Ok(remote) if self.send_again(held, &remote) => {
                    tracing::info!("the run goes on");
                    let base = old.base + std::mem::take(&mut held.dropped);
                    let session = Session { number: lost + 1, base, remote: Arc::new(remote) };
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = session;
                    return Ok(());
                }
                Err(AgentError::NotAuthorised(why)) => return Err(TransferError::Refused(why)),
                Err(AgentError::Stopping(why)) => return Err(TransferError::Refused(why.to_owned())),
                _ if watch.elapsed_ms() > PATIENCE_MS => return Err(why),
                _ => {}
            }
        }
    }

    fn send_again(&self, held: &Held, remote: &Remote) -> bool {
        let same =
            remote.welcome().parameters.generation == self.session().remote.welcome().parameters.generation;
        same && held.objects.iter().all(|object| remote.put(object.clone()).is_ok())
    }
}

impl Held {
    /// Lets go of what is durable; `durable` counts this session's objects.
    fn forget(&mut self, durable: u64) {
        while self.dropped < durable {
            let Some(object) = self.objects.pop_front() else { return };
            self.bytes -= object.body.len();
            self.dropped += 1;
        }
    }
}

/// Passes answers on in the order of the questions, across sessions.
fn forward(open: &Receiver<Open>, sink: &std::sync::Weak<Resuming>) {
    for mut question in open {
        loop {
            if let Ok(answers) = question.answers.recv() {
                // Who asked may have given up.
                let _ = question.reply.send(answers);
                break;
            }
            let Some(sink) = sink.upgrade() else { return };
            // Dropping the question tells whoever asked.
            let Ok((session, answers)) = sink.ask_again(question.session, &question.queries) else { break };
            (question.session, question.answers) = (session, answers);
        }
    }
}

impl Resuming {
    fn ask_again(&self, lost: u64, queries: &[Query]) -> Result<(u64, Answers), TransferError> {
        let session = self.session();
        if session.number == lost {
            let why = session.remote.reason();
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            self.resume(&mut held, lost, why)?;
        }
        let session = self.session();
        Ok((session.number, session.remote.ask(queries.to_vec())?))
    }
}

impl ObjectSink for Resuming {
    fn ask(&self, queries: Vec<Query>) -> Result<Answers, TransferError> {
        let Session { number: session, remote, .. } = self.session();
        // An ask that fails at once is asked again by the forwarder, like one that fails later.
        let answers = remote.ask(queries.clone()).unwrap_or_else(|_| channel().1);
        let (reply, receive) = channel();
        let question = Open { queries, answers, session, reply };
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(questions) = &*questions {
            let _ = questions.send(question);
        }
        Ok(receive)
    }

    /// What is lost with a session is not asked for again: it is only worth bytes.
    fn sign(&self, spots: Vec<Spot>) -> Signatures {
        self.session().remote.sign(spots)
    }

    fn put(&self, object: Compressed) -> Result<u64, TransferError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes += object.body.len();
        held.objects.push_back(object.clone());
        let Session { number, remote, .. } = self.session();
        if let Err(why) = remote.put(object) {
            self.resume(&mut held, number, why)?;
        }
        loop {
            let Session { number, base, remote } = self.session();
            held.forget(remote.durable());
            if held.bytes <= HELD_MAX {
                return Ok(base + held.dropped + held.objects.len() as u64);
            }
            match remote.failure() {
                Some(why) => self.resume(&mut held, number, why)?,
                None => std::thread::sleep(LOOK),
            }
        }
    }

    fn durable(&self) -> u64 {
        let Session { base, remote, .. } = self.session();
        base + remote.durable()
    }

    fn failure(&self) -> Option<TransferError> {
        self.session().remote.failure()
    }
}
