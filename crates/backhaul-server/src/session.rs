//! One conversation with a client (or an operator), whoever dialled.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backhaul_net::link::{FrameReader, FrameWriter, Streams};
use backhaul_net::{Link, NetError, PeerIdentity, Role};
use backhaul_object::ids::SessionId;
use backhaul_object::{ObjectId, Reference};
use backhaul_proto::errand::News;
use backhaul_proto::server::{Request, ServerSession};
use backhaul_proto::{PROTOCOL, end, feature, wire};
use backhaul_store::Owned;
use backhaul_store::vault::Stats;
use bytes::Bytes;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::clock;
use crate::errands::{self, Errand};
use crate::fleet::Client;
use crate::keyring::random;

mod admission;
pub mod answers;
mod attend;
mod bases;
mod book;
mod door;
pub mod ingest;
mod manners;
mod open_vault;
mod orders;
mod patches;
mod promises;
mod questions;
pub mod reads;
mod reports;
mod room;
mod signing;

pub use admission::{Asked, Desk, Ending, EndingKind, Outcome, identify};
use door::{Waiting, farewell, greet, refuse, turn_away, wait_for_grant};
use ingest::{CommitRequest, Ingest, Report};
use manners::Manners;
pub use open_vault::OpenVault;
use questions::Questions;
use reads::{Presence, Requests};

/// How long a goodbye may take: over a slow line what was sent before it comes first.
const GOODBYE: Duration = Duration::from_secs(10);
/// Software name in the welcome.
const SOFTWARE: &str = concat!("backhaul ", env!("CARGO_PKG_VERSION"));

/// The running conversation.
struct Conversation {
    vault: Arc<OpenVault>,
    client: Client,
    operator: bool,
    session: ServerSession,
    writer: FrameWriter,
    owned: Arc<Mutex<Owned>>,
    ingest: Option<Ingest>,
    reports: mpsc::UnboundedReceiver<Report>,
    reads: mpsc::Sender<Vec<Reference>>,
    grant: Option<(u64, Option<ObjectId>)>,
    questions: Questions,
    peer: PeerIdentity,
    /// The version of the terms that it was sent and has not confirmed.
    terms: Option<u64>,
    manners: Manners,
    /// Of a session that is for a restore: who ordered it hears of it.
    errand: Option<UnboundedSender<News>>,
    /// Of a restore that this operator has ordered.
    ordered: Option<UnboundedReceiver<News>>,
    outcome: Outcome,
}

/// What a session has come to when its peer is known and may begin.
enum Opened {
    /// It waits, perhaps for days.
    Standing(Box<Start>),
    /// It moves data.
    Working(Box<Start>),
    /// It was refused, or has left.
    Ended(Outcome),
}

/// Carries a session from hello to goodbye. Each part is apart, so that the task of a link that stands holds no room
/// for the others.
pub async fn serve<D: Desk>(link: Link, vault: Arc<OpenVault>, desk: &D) -> Outcome {
    let hangup = link.hangup();
    let outcome = match Box::pin(open(link, desk)).await {
        Opened::Standing(start) => Box::pin(attend::attend(start, desk)).await,
        Opened::Working(start) => Box::pin(converse(start, vault, desk)).await,
        Opened::Ended(outcome) => outcome,
    };
    match &outcome.ending {
        // Where the last words did not arrive in time, this may; whoever is to come back is not sent away by it.
        Some(Ending { kind: EndingKind::Decided, code, text, retry })
            if retry.after == 0 && ![end::DONE, end::STALE].contains(code) =>
        {
            hangup.dismiss(text);
        }
        _ => hangup.close("the session is over"),
    }
    outcome
}

/// Until the peer is let in.
async fn open<D: Desk>(link: Link, desk: &D) -> Opened {
    let peer = link.peer().clone();
    let (mut writer, mut frames, streams) = link.split();
    let mut session = ServerSession::new();
    let (hello, client) = match greet(&mut session, &mut frames, &peer, desk).await {
        Ok(known) => known,
        Err(ending) => return Opened::Ended(refuse(session, writer, ending).await),
    };
    let errand = desk.errand(&client, &hello);
    // Whatever an agent that was dialled for a restore had in mind.
    let intent = if errand.is_some() { wire::Intent::Browse } else { hello.intent() };
    if errand.is_none() && !hello.errand.is_empty() {
        let ending = Ending::new(end::BUSY, "there is nothing to restore any more: it has taken too long");
        return Opened::Ended(turn_away((session, writer), (desk, &client), ending).await);
    }
    if intent == wire::Intent::Backup {
        let waiting = Waiting { session: &mut session, writer: &mut writer, frames: &mut frames };
        if let Err(ending) = wait_for_grant(waiting, desk, &client, &hello).await {
            return Opened::Ended(turn_away((session, writer), (desk, &client), ending).await);
        }
    }
    let start = Box::new(Start { intent, client, errand, peer, session, writer, frames, streams });
    match intent {
        wire::Intent::Attend => Opened::Standing(start),
        _ => Opened::Working(start),
    }
}

async fn send_queued(session: &mut ServerSession, writer: &mut FrameWriter) -> Result<(), NetError> {
    while let Some(frame) = session.poll() {
        writer.send(&frame).await?;
    }
    Ok(())
}

/// A session at its begin.
struct Start {
    intent: wire::Intent,
    client: Client,
    errand: Option<Errand>,
    peer: PeerIdentity,
    session: ServerSession,
    writer: FrameWriter,
    frames: FrameReader,
    streams: Streams,
}

/// The part after admission.
async fn converse<D: Desk>(start: Box<Start>, vault: Arc<OpenVault>, desk: &D) -> Outcome {
    let Start { intent, client, errand, peer, session, writer, frames, streams } = *start;
    let (client, errand, order) = Errand::split(errand, client);
    let (client_id, wants_backup) = (client.id, intent == wire::Intent::Backup);
    // From before it learns what is there until its last word.
    let pass = Presence::enter(&vault, wants_backup, &client);
    let owning = Arc::clone(&vault);
    let owned =
        tokio::task::spawn_blocking(move || owning.vault.owned(client_id).map_err(Ending::from)).await;
    let (reports_in, reports) = mpsc::unbounded_channel();
    let (reads, read_requests) = mpsc::channel(16);
    let owned = match owned.unwrap_or_else(|error| Err(Ending::new(end::STORAGE, error.to_string()))) {
        Ok(owned) => Arc::new(Mutex::new(owned)),
        Err(ending) => return turn_away((session, writer), (desk, &client), ending).await,
    };
    let mut talk = Conversation {
        vault: Arc::clone(&vault),
        client,
        operator: peer.role == Role::Operator,
        session,
        writer,
        owned: Arc::clone(&owned),
        ingest: None,
        reports,
        reads,
        grant: None,
        questions: Questions::default(),
        peer,
        terms: None,
        manners: Manners::new(clock::boot_ms()),
        errand,
        ordered: None,
        outcome: Outcome::default(),
    };
    let streams = Arc::new(streams);
    let welcome = match tokio::task::block_in_place(|| talk.welcome(wants_backup)) {
        Ok(welcome) => wire::Welcome {
            verdict: Some(desk.verdict(&talk.client)),
            terms: wants_backup.then(|| desk.terms(&talk.client)),
            errand: order,
            ..welcome
        },
        Err(ending) => {
            return turn_away((talk.session, talk.writer), (desk, &talk.client), ending).await;
        }
    };
    talk.terms = welcome.terms.map(|terms| terms.version);
    if let Some(grant) = &welcome.grant {
        let session = SessionId::try_from(&grant.session[..]).unwrap_or(SessionId([0; 16]));
        let (vault, owned, streams) = (Arc::clone(&vault), Arc::clone(&owned), Arc::clone(&streams));
        let throttle = desk.throttle();
        let ingest = Ingest::start(streams, vault, session, client_id, owned, throttle, reports_in.clone());
        talk.ingest = Some(ingest);
    }
    let requests = Requests { queue: read_requests, presence: Arc::clone(&pass) };
    let sending = tokio::spawn(reads::serve(streams, vault, owned, requests, reports_in));
    talk.session.welcome(welcome);
    let outcome = talk.run(frames, desk).await;
    sending.abort();
    outcome
}

impl Conversation {
    fn welcome(&mut self, backup: bool) -> Result<wire::Welcome, Ending> {
        let (vault, client) = (&self.vault, &self.client);
        let grant = match backup {
            false => None,
            true => {
                let last = vault.vault.snapshots(Some(client.id))?.into_iter().max_by_key(|row| row.sequence);
                let sequence = vault.vault.last_sequence(client.id)? + 1;
                let previous = last.map(|row| row.id);
                self.grant = Some((sequence, previous));
                let session: [u8; 16] = random()?;
                let previous = previous.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default();
                Some(wire::Grant { session: session.to_vec().into(), sequence, previous })
            }
        };
        let bytes = |raw: &[u8]| Bytes::copy_from_slice(raw);
        Ok(wire::Welcome {
            protocol: PROTOCOL,
            features: [feature::PATCH, feature::SIGN, feature::ARRANGE].map(str::to_owned).to_vec(),
            software: SOFTWARE.to_owned(),
            server_time: clock::now(),
            client: client.name.clone(),
            client_id: bytes(client.id.as_bytes()),
            descriptor: vault.vault.descriptor().encode().into(),
            id_key: bytes(vault.id_key.expose()),
            chunker_key: bytes(&vault.chunker_key),
            generation: bytes(&vault.vault.generation_for(client.id)?),
            grant,
            ..Default::default()
        })
    }

    async fn run<D: Desk>(mut self, mut frames: FrameReader, desk: &D) -> Outcome {
        let ending = loop {
            if let Err(error) = send_queued(&mut self.session, &mut self.writer).await {
                break Some(Ending::from(error));
            }
            tokio::select! {
                frame = frames.next() => match frame {
                    Ok(None) => break Some(Ending::lost("the peer went away")),
                    Err(error) => break Some(error.into()),
                    Ok(Some(frame)) => match self.on_frame(frame, desk).await {
                        Ok(true) => break None,
                        Ok(false) => {}
                        Err(ending) => break Some(ending),
                    },
                },
                news = errands::hear(&mut self.ordered) => self.session.news(news),
                () = errands::abandoned(self.errand.as_ref()) => {
                    break Some(Ending::lost("whoever has ordered this restore has gone"));
                }
                () = self.questions.due() => {
                    if let Err(ending) = self.answer_questions() {
                        break Some(ending);
                    }
                }
                Some(report) = self.reports.recv() => {
                    if let Err(ending) = self.on_report(report, desk) {
                        break Some(ending);
                    }
                }
            }
        };
        if let Some(ingest) = &self.ingest {
            ingest.seat.leave();
        }
        if let Some(ending) = &ending {
            tracing::warn!(client = %self.client.name, code = ending.code, "session ended: {}", ending.text);
            self.session.end(ending.code, &ending.text, ending.retry.clone());
        }
        let mut outcome = Outcome { ending, ..self.outcome.clone() };
        if self.is_settled() {
            tokio::task::block_in_place(|| desk.over(&self.client, &outcome));
        }
        farewell(&mut self.session, &mut self.writer).await;
        if let Some(ingest) = self.ingest.take() {
            ingest.stop().await;
            // What it still did counts, whether or not anybody hears of it.
            while let Ok(report) = self.reports.try_recv() {
                self.write_down(&report, desk);
            }
        }
        outcome.committed = self.outcome.committed;
        outcome
    }

    /// False while a snapshot may still come of it, whatever has ended the session.
    fn is_settled(&self) -> bool {
        self.outcome.committed.is_some() || self.grant.is_some() || self.ingest.is_none()
    }

    /// True when the peer has said goodbye.
    async fn on_frame<D: Desk>(&mut self, frame: wire::Frame, desk: &D) -> Result<bool, Ending> {
        if self.grant.is_some() {
            desk.goes_on(&self.client);
        }
        let request = self.session.handle(frame).map_err(|e| Ending::new(e.to_end().code, e.to_string()))?;
        match request {
            Request::Bye(goodbye) => return Ending::of_goodbye(goodbye).map_or(Ok(true), Err),
            Request::Hello(_) => return Err(Ending::new(end::PROTOCOL, "a second hello")),
            // Only to show that the run goes on, where there is nothing to send for long.
            Request::Report(_) => self.manners.beat(clock::boot_ms())?,
            Request::Applied(ref applied) => {
                // Once, and only for what it was sent.
                if self.terms.take() != Some(applied.version) {
                    return Err(Ending::new(end::PROTOCOL, "it was sent no such terms"));
                }
                tokio::task::block_in_place(|| desk.heard(&self.client, &request));
            }
            Request::NotNow(_) | Request::NudgeReply(_) => {
                return Err(Ending::new(end::PROTOCOL, "it does not attend"));
            }
            Request::Order(order) => self.on_order(*order, desk)?,
            Request::News(news) => self.on_news(news)?,
            Request::Ask(batch, prefixes) => self.on_ask(batch, prefixes)?,
            Request::Prove(batch, proofs) => {
                let prove = || answers::prove(&self.vault, &self.owned, self.client.id, &proofs);
                let verdicts = tokio::task::block_in_place(prove)?;
                self.session.answer(batch, &verdicts);
            }
            Request::Sign(batch, spots) => {
                let kin = tokio::task::block_in_place(|| signing::sign(&self.vault, &self.owned, &spots))?;
                self.session.signatures(batch, &kin);
            }
            Request::Arrange(ids) => {
                let order = tokio::task::block_in_place(|| reads::arrange(&self.vault, &self.owned, &ids));
                self.session.arranged(order);
            }
            Request::Commit(commit) => self.on_commit(commit).await?,
            Request::List(request) => {
                self.is_modest()?;
                let list = || answers::list(&self.vault, self.client.id, request);
                let rows = tokio::task::block_in_place(list)?;
                self.session.snapshots(rows);
            }
            Request::Stats => self.on_stats()?,
            Request::Read(wanted) => {
                let gone = |_| Ending::new(end::STORAGE, "reading has stopped");
                self.reads.send(wanted).await.map_err(gone)?;
            }
        }
        Ok(false)
    }

    fn on_stats(&mut self) -> Result<(), Ending> {
        self.is_modest()?;
        let Stats { objects, packs, bytes_on_disk, snapshots } =
            tokio::task::block_in_place(|| self.vault.vault.stats())?;
        self.session.stats(wire::VaultStats { objects, packs, bytes_on_disk, snapshots });
        Ok(())
    }

    /// Lists cost the server much and their reader nothing. Operators may ask what they like.
    fn is_modest(&mut self) -> Result<(), Ending> {
        if self.operator { Ok(()) } else { self.manners.word(clock::boot_ms()) }
    }

    async fn on_commit(&mut self, commit: wire::Commit) -> Result<(), Ending> {
        let (Some(ingest), Some((sequence, previous))) = (&self.ingest, self.grant.take()) else {
            return Err(Ending::new(end::PROTOCOL, "commit without a grant"));
        };
        if self.operator {
            return Err(Ending::new(end::REVOKED, "an operator does not back up"));
        }
        let snapshot = backhaul_proto::data::decode_object(&commit.header, commit.body)
            .map_err(|error| Ending::new(end::DATA, error.to_string()))?;
        if !self.peer.verify(snapshot.header.id.as_bytes(), &commit.signature) {
            return Err(Ending::new(end::DATA, "the snapshot is not signed by this client's key"));
        }
        let request = CommitRequest {
            objects: commit.objects,
            snapshot,
            sequence,
            previous,
            client_name: self.client.name.clone(),
            signature: commit.signature.to_vec(),
            changes: (commit.files_new, commit.files_changed),
        };
        ingest.commit(request).await
    }
}

pub(crate) fn lock(owned: &Mutex<Owned>) -> std::sync::MutexGuard<'_, Owned> {
    owned.lock().unwrap_or_else(PoisonError::into_inner)
}
