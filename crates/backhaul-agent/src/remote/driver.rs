//! The tasks of a session: frames in, frames and objects out, replies to reads.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use backhaul_net::link::{FrameReader, FrameWriter};
use backhaul_net::{Link, NetError};
use backhaul_object::Compressed;
use backhaul_object::source::{Answer, Kin, TransferError};
use backhaul_proto::agent::AgentSession;
use backhaul_proto::errand::News;
use backhaul_proto::goodbye::Goodbye;
use backhaul_proto::{Retry, SessionError, end, wire};
use tokio::sync::{mpsc, oneshot};

use super::bulk::{PendingRead, receive_objects, send_objects};
use super::trace::{describe, traced};
use super::{Adopting, Answered, Command, Commitment, Limits, Opening, Shared, Waiting, lost, travelling};
use crate::clock::Stopwatch;
use crate::ways::Leaving;

mod events;

/// How often a session shows that it goes on, where it has nothing to say.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// How long a server may take for the next word to one who is not let in yet.
const SILENCE: Duration = Duration::from_secs(55);
/// How long a goodbye may take: what was said before it may still be on its way.
const GOODBYE: Duration = Duration::from_secs(30);
/// How long it may take over a list of snapshots, however much it says meanwhile.
const LISTING: Duration = Duration::from_secs(600);
/// How long it may take to answer, while it has to check and write what it was sent.
const STALL: Duration = Duration::from_secs(600);

/// Owns the state machine and carries out what it and the threads want.
pub(super) struct Driver {
    /// Where it is, for people.
    server: String,
    session: AgentSession,
    shared: Arc<Shared>,
    answer: Option<oneshot::Sender<Answered>>,
    waiting: Option<Waiting>,
    adopting: Option<Adopting>,
    limits: Limits,
    leaving: Option<Leaving>,
    /// Tells the task that sends objects to drop them.
    abandon: Option<oneshot::Sender<()>>,
    /// What the hello said about not wanting to.
    not_now: Option<wire::NotNow>,
    /// When something was heard last, or an object was taken, and how many had been by then.
    heard: Stopwatch,
    sent: u64,
    asked: HashMap<u64, Sender<Vec<Answer>>>,
    signing: HashMap<u64, Sender<Vec<Kin>>>,
    /// The oldest question first.
    arranging: VecDeque<Sender<Vec<usize>>>,
    committed: Option<Sender<wire::Committed>>,
    /// With the time since each was asked for.
    lists: Vec<(Sender<Vec<wire::SnapshotRow>>, Stopwatch)>,
    stats: Vec<Sender<wire::VaultStats>>,
    ordered: Option<Sender<News>>,
    closing: bool,
    /// It was told to leave, and how that is called.
    left: Option<&'static str>,
}

impl Driver {
    pub(super) fn new(opening: Opening, shared: Arc<Shared>, answer: oneshot::Sender<Answered>) -> Self {
        let Opening { hello, waiting, terms, limits, leaving } = opening;
        Self {
            server: String::new(),
            not_now: hello.not_now.clone(),
            session: AgentSession::new(hello),
            shared,
            answer: Some(answer),
            waiting,
            adopting: terms,
            limits,
            leaving,
            abandon: None,
            heard: Stopwatch::start(),
            sent: 0,
            left: None,
            asked: HashMap::new(),
            signing: HashMap::new(),
            arranging: VecDeque::new(),
            committed: None,
            lists: Vec::new(),
            stats: Vec::new(),
            ordered: None,
            closing: false,
        }
    }

    pub(super) async fn run(
        mut self,
        link: Link,
        mut commands: mpsc::UnboundedReceiver<Command>,
        objects: mpsc::Receiver<Compressed>,
    ) {
        let hangup = link.hangup();
        self.server = link.path().remote().to_string();
        let (mut writer, reader, streams) = link.split();
        let streams = Arc::new(streams);
        let (frames_in, mut frames) = mpsc::channel(64);
        let (reads, pending) = mpsc::unbounded_channel();
        let (abandon, abandoned) = oneshot::channel();
        self.abandon = Some(abandon);
        let leaving = self.leaving.clone();
        let tasks = [
            tokio::spawn(read_frames(reader, frames_in)),
            tokio::spawn(send_objects(
                Arc::clone(&streams),
                objects,
                Arc::clone(&self.shared),
                (abandoned, leaving),
            )),
            tokio::spawn(receive_objects(streams, pending, Arc::clone(&self.shared))),
        ];
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.tick().await;
        while !self.closing {
            if let Err(error) = self.send_queued(&mut writer).await {
                self.shared.fail(end::PROTOCOL, lost(&error));
                // The server may have said why before it hung up.
                self.last_words(&mut frames).await;
                break;
            }
            let ask_more = self.session.may_ask();
            tokio::select! {
                command = commands.recv(), if ask_more => match command {
                    Some(command) => self.on_command(command, &reads),
                    None => self.closing = true,
                },
                frame = frames.recv() => {
                    self.heard = Stopwatch::start();
                    if self.on_arrival(frame).is_break() {
                        break;
                    }
                }
                how = heard(&mut self.leaving) => self.leave(how),
                _ = beat.tick() => self.on_beat(),
            }
        }
        let goodbye = async {
            if self.send_queued(&mut writer).await.is_ok() && self.closing {
                writer.end().await;
            }
        };
        // A server that takes nothing must not hold this machine either.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        for task in tasks {
            task.abort();
        }
        if let Some(how) = self.left {
            hangup.leave(how);
        }
    }

    /// Whoever runs this has had enough: nothing of it goes on by itself.
    fn leave(&mut self, how: &'static str) {
        self.shared.fail(end::CUT_SHORT, TransferError::Refused(how.to_owned()));
        self.session.close(Goodbye::CutShort(how.to_owned()));
        (self.closing, self.left) = (true, Some(how));
    }

    fn on_beat(&mut self) {
        self.look_at_objects();
        if self.heard.elapsed() >= self.patience() {
            self.broken("it is there, and says nothing");
        }
        if self.lists.first().is_some_and(|(_, asked)| asked.elapsed() >= LISTING) {
            self.broken("its list of snapshots has no end");
        }
        self.session.heartbeat();
    }

    /// How long the server may be silent: a link that carries packets and no words must not keep this machine from its
    /// backup. Who waits for a slot hears of its place every ten seconds, and a server ends a run that stalls.
    fn patience(&self) -> Duration {
        match (&self.answer, self.awaits()) {
            (Some(_), _) => SILENCE,
            (None, true) => STALL,
            (None, false) => Duration::MAX,
        }
    }

    /// True when the server owes an answer, or the word that what it was sent is safe.
    fn awaits(&self) -> bool {
        let asked = !self.asked.is_empty() || !self.signing.is_empty() || self.committed.is_some();
        let safe = self.shared.durable.load(Ordering::SeqCst);
        asked
            || !self.arranging.is_empty()
            || !self.lists.is_empty()
            || !self.stats.is_empty()
            || self.shared.left.load(Ordering::SeqCst) > safe
    }

    /// A line that carries objects is no silent one.
    fn look_at_objects(&mut self) {
        let left = self.shared.left.load(Ordering::SeqCst);
        if std::mem::replace(&mut self.sent, left) != left {
            self.heard = Stopwatch::start();
        }
    }

    async fn send_queued(&mut self, writer: &mut FrameWriter) -> Result<(), NetError> {
        while let Some(frame) = self.session.poll() {
            tracing::trace!("frame > {}", describe(&frame));
            writer.send(&frame).await?;
        }
        Ok(())
    }

    async fn last_words(&mut self, frames: &mut mpsc::Receiver<Result<wire::Frame, NetError>>) {
        while let Some(Ok(frame)) = frames.recv().await {
            if let Err(SessionError::Ended { code, text, retry }) = self.session.handle(frame) {
                *self.shared.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
                self.shared.fail_with(code, ended(code, text), retry);
                return;
            }
        }
    }

    fn on_command(&mut self, command: Command, reads: &mpsc::UnboundedSender<PendingRead>) {
        if !self.awaits() {
            // It had nothing to say before.
            self.heard = Stopwatch::start();
        }
        match command {
            Command::Ask(queries, reply) => match self.session.ask(queries) {
                Ok(batch) => drop(self.asked.insert(batch, reply)),
                Err(error) => self.broken(&error.to_string()),
            },
            Command::Sign(spots, reply) => match self.session.sign(&spots) {
                Ok(batch) => drop(self.signing.insert(batch, reply)),
                Err(error) => self.broken(&error.to_string()),
            },
            Command::Arrange(ids, reply) => {
                self.session.arrange(&ids);
                self.arranging.push_back(reply);
            }
            Command::Read(wanted, reply) => {
                self.session.read(&wanted);
                let _ = reads.send(PendingRead { wanted, reply });
            }
            Command::Commit(commitment, reply) => {
                let (header, body) = travelling(&commitment.manifest);
                let Commitment { objects, signature, changes, .. } = *commitment;
                let commit = wire::Commit {
                    objects,
                    header,
                    body,
                    signature: signature.into(),
                    files_new: changes.files_new,
                    files_changed: changes.files_changed,
                };
                match self.session.commit(commit) {
                    Ok(()) => self.committed = Some(reply),
                    Err(error) => self.broken(&error.to_string()),
                }
            }
            Command::List(list, reply) => {
                self.session.list(list);
                self.lists.push((reply, Stopwatch::start()));
            }
            Command::Stats(reply) => {
                self.session.stats();
                self.stats.push(reply);
            }
            Command::Order(order, news) => {
                self.session.order(*order);
                self.ordered = Some(news);
            }
            Command::News(news) => self.session.news(news),
            Command::Close(goodbye) => {
                // Nothing of a run that is given up is worth waiting for, least of all by the word that says so.
                if let Some(abandon) = self.abandon.take().filter(|_| goodbye != Goodbye::Done) {
                    let _ = abandon.send(());
                }
                self.session.close(goodbye);
                self.closing = true;
            }
        }
    }

    fn broken(&mut self, why: &str) {
        self.shared.fail(end::PROTOCOL, self.blame(why));
        self.closing = true;
    }

    /// What the server has done to deserve no more attention. A run may go on in another session, a reader has to know.
    fn blame(&self, why: &str) -> TransferError {
        let why = format!("the server at {}: {why}", self.server);
        if self.lists.is_empty() { TransferError::Lost(why) } else { TransferError::Refused(why) }
    }

    fn on_arrival(&mut self, frame: Option<Result<wire::Frame, NetError>>) -> std::ops::ControlFlow<()> {
        let outcome = match frame {
            None => {
                Err((end::PROTOCOL, TransferError::Lost("the server went away".to_owned()), Retry::default()))
            }
            Some(Err(error)) => Err((end::PROTOCOL, lost(&error), Retry::default())),
            Some(Ok(frame)) => match self.session.handle(traced(frame)) {
                Ok(event) => Ok(event),
                Err(SessionError::Ended { code, text, retry }) => Err((code, ended(code, text), retry)),
                Err(error) => Err((end::PROTOCOL, self.blame(&error.to_string()), Retry::default())),
            },
        };
        match outcome {
            Ok(event) => {
                if let Some(event) = event {
                    self.on_event(event);
                }
                std::ops::ControlFlow::Continue(())
            }
            Err((code, error, retry)) => {
                self.shared.fail_with(code, error, retry);
                std::ops::ControlFlow::Break(())
            }
        }
    }
}

/// Waits until a session is to leave; for ever, where nobody says so.
pub(super) async fn heard(leaving: &mut Option<Leaving>) -> &'static str {
    match leaving {
        Some(leaving) => leaving.heard().await,
        None => std::future::pending().await,
    }
}

fn ended(code: u32, text: String) -> TransferError {
    match code {
        end::STALE => TransferError::Stale,
        _ => TransferError::Refused(text),
    }
}

/// Reads for those who `select!`: a frame that has begun to arrive must not be dropped.
pub(crate) async fn read_frames(
    mut reader: FrameReader,
    frames: mpsc::Sender<Result<wire::Frame, NetError>>,
) {
    while let Some(frame) = reader.next().await.transpose() {
        let broken = frame.is_err();
        if frames.send(frame).await.is_err() || broken {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
