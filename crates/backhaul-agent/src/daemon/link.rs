//! The link to the server: dialled, kept for as long as it is wanted, its words passed on.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use backhaul_net::endpoint::dial_server;
use backhaul_net::link::{FrameWriter, Path};
use backhaul_net::throttle::Bucket;
use backhaul_net::transport::Use;
use backhaul_net::{Link, NetError};
use backhaul_proto::attend::{AttendSession, Event};
use backhaul_proto::{SessionError, wire};
use backhaul_schedule::policy::AgentTerms;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::attend::{Age, Happening, LinkWish, Verdict};
use crate::clock;
use crate::error::AgentError;
use crate::home::AgentHome;
use crate::pace::Crossing;
use crate::remote::read_frames;
use crate::terms;

/// After it may have another way, a link that is silent for so long is given up.
const SUSPECT: Duration = Duration::from_secs(3);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the daemon wants of the link.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Say how the machine stands.
    Report(wire::Report),
    /// Say that a run that is due is not asked for.
    NotNow(wire::NotNow),
    /// Answer a nudge.
    Reply(wire::NudgeReply),
    /// Go on from a new socket, and see whether the server is still there.
    Migrate,
    /// Say goodbye.
    Hang,
}

/// What the daemon hears of the link.
#[derive(Debug)]
pub(super) enum Heard {
    /// For the machine that decides.
    Happened(Happening),
    /// New terms, with their version.
    Terms(u64, AgentTerms),
    /// Which address of this machine the server sees.
    Crossed(Crossing),
    /// How old the newest snapshot is, in limits of the policy.
    Lateness(f64),
    /// There is something to restore, for whoever shows this.
    Errand(Bytes),
}

/// Something that is heard, and of which link, if of one.
#[derive(Debug)]
pub(super) struct Said {
    pub link: Option<u64>,
    pub heard: Heard,
}

/// Tells what becomes of one link.
#[derive(Debug, Clone)]
pub(super) struct Tell {
    link: u64,
    sender: mpsc::UnboundedSender<Said>,
}

impl Tell {
    /// For link number `link`.
    pub fn new(link: u64, sender: mpsc::UnboundedSender<Said>) -> Self {
        Self { link, sender }
    }

    fn say(&self, heard: Heard) {
        // The daemon may be gone.
        let _ = self.sender.send(Said { link: Some(self.link), heard });
    }
}

/// Frames that wait to be understood.
const INBOUND_MAX: usize = 16;
/// What a server may say over a link, as a bucket: a thousand frames at once, and then ten a second. A busy fleet's says
/// a few a second at most; one that has gone mad must not keep this machine awake.
const FRAME: u64 = 64;
const FRAMES: NonZeroU64 = NonZeroU64::MIN.saturating_add(10 * FRAME - 1);

/// Dials and stays until either side has enough. Always ends with a word that says so.
pub(super) async fn run(
    home: AgentHome,
    servers: Vec<String>,
    hello: wire::Hello,
    keep_alive: Duration,
    wanted: mpsc::UnboundedReceiver<Wanted>,
    tell: Tell,
) {
    let link = match dial(&home, &servers, keep_alive).await {
        Ok(link) => link,
        Err(error) => {
            tracing::info!("the server is not reached: {error}");
            return tell.say(Heard::Happened(Happening::NotReached));
        }
    };
    let path = link.path();
    let (writer, reader, streams) = link.split();
    let (frames_in, frames) = mpsc::channel(INBOUND_MAX);
    let reading = tokio::spawn(read_frames(reader, frames_in));
    let session = AttendSession::new(hello);
    let over = Happening::NotReached;
    let heard = Bucket::new(FRAMES);
    let talk = Talk { session, writer, path, home, tell: tell.clone(), over, heard };
    let over = talk.run(frames, wanted).await;
    reading.abort();
    streams.hangup().close("done");
    tell.say(Heard::Happened(over));
}

async fn dial(home: &AgentHome, servers: &[String], keep_alive: Duration) -> Result<Link, AgentError> {
    let identity = home.agent()?;
    let mut last =
        NetError::Unreachable { address: "the server".to_owned(), why: "no address known".to_owned() };
    for server in servers {
        match dial_server(server, &identity, Use::Standing(keep_alive)).await {
            Ok(link) => return Ok(link),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

struct Talk {
    session: AttendSession,
    writer: FrameWriter,
    path: Path,
    home: AgentHome,
    tell: Tell,
    /// What its end means.
    over: Happening,
    heard: Bucket,
}

impl Talk {
    /// Returns what its end means.
    async fn run(
        mut self,
        mut frames: mpsc::Receiver<Result<wire::Frame, NetError>>,
        mut wanted: mpsc::UnboundedReceiver<Wanted>,
    ) -> Happening {
        let (suspicion, mut gone) = mpsc::channel::<()>(1);
        loop {
            while let Some(frame) = self.session.poll() {
                if let Err(error) = self.writer.send(&frame).await {
                    tracing::info!("the link is gone: {error}");
                    return self.over;
                }
            }
            tokio::select! {
                frame = frames.recv() => match frame {
                    Some(Ok(frame)) => if !self.on_frame(frame) { return self.over },
                    None => return self.over,
                    Some(Err(error)) => {
                        tracing::info!("the link is gone: {error}");
                        return self.over;
                    }
                },
                wish = wanted.recv() => match wish {
                    Some(Wanted::Report(report)) => self.session.report(report),
                    Some(Wanted::NotNow(not_now)) => self.session.not_now(not_now),
                    Some(Wanted::Reply(reply)) => self.session.reply(reply),
                    Some(Wanted::Migrate) => self.migrate(&suspicion),
                    Some(Wanted::Hang) | None => {
                        self.session.close();
                        let _ = tokio::time::timeout(GOODBYE, self.goodbye()).await;
                        return self.over;
                    }
                },
                Some(()) = gone.recv() => {
                    tracing::info!("the link did not survive the change of network");
                    return self.over;
                }
            }
        }
    }

    async fn goodbye(&mut self) {
        while let Some(frame) = self.session.poll() {
            if self.writer.send(&frame).await.is_err() {
                return;
            }
        }
        self.writer.end().await;
    }

    fn migrate(&self, suspicion: &mpsc::Sender<()>) {
        let (path, suspicion) = (self.path.clone(), suspicion.clone());
        tokio::spawn(async move {
            if migrate(&path).await.is_err() {
                let _ = suspicion.send(()).await;
            }
        });
    }

    /// False when the session is over.
    fn on_frame(&mut self, frame: wire::Frame) -> bool {
        if self.heard.take(clock::clocks().boot_ms * 1_000_000, FRAME) > 0 {
            tracing::warn!("the server says too much: its link is given up");
            return false;
        }
        match self.session.handle(frame) {
            Ok(Event::Welcome(welcome)) => {
                self.over = Happening::Unlinked;
                if let Some(terms) = welcome.terms {
                    self.on_terms(&terms);
                }
                self.on_verdict(&welcome.verdict.unwrap_or_default(), Happening::Linked);
                self.on_observed(&welcome.observed);
            }
            Ok(Event::Verdict(verdict)) => self.on_verdict(&verdict, Happening::Told),
            Ok(Event::Nudged(nudge)) => {
                let by_hand = nudge.cause() == wire::Cause::Manual;
                self.tell.say(Heard::Happened(Happening::Nudged { id: nudge.id, by_hand }));
            }
            Ok(Event::Terms(terms)) => self.on_terms(&terms),
            Ok(Event::Errand(token)) => self.tell.say(Heard::Errand(token)),
            Err(SessionError::Ended { text, retry, .. }) => {
                if retry.after > 0 {
                    self.over = Happening::SentAway { after: retry.after };
                }
                if !text.is_empty() {
                    tracing::warn!("the server ended the link: {text}");
                }
                return false;
            }
            Err(error) => {
                tracing::warn!("{error}");
                return false;
            }
        }
        true
    }

    fn on_verdict(&self, verdict: &wire::Verdict, happening: impl FnOnce(Verdict) -> Happening) {
        self.tell.say(Heard::Lateness(verdict.lateness as f64 / 1_000.0));
        self.tell.say(Heard::Happened(happening(Verdict {
            due_in: verdict.due_in,
            link: if verdict.stay { LinkWish::Stay } else { LinkWish::Visit },
            age: if verdict.late { Age::Late } else { Age::InTime },
        })));
    }

    fn on_observed(&self, observed: &str) {
        let seen = observed.parse().map(|seen: SocketAddr| seen.ip().to_canonical());
        let (Some(own), Ok(seen)) = (self.path.local(), seen) else { return };
        self.tell.say(Heard::Crossed(Crossing { own, seen }));
    }

    fn on_terms(&mut self, terms: &wire::Terms) {
        let (adopted, applied) = terms::adopt(&self.home, terms);
        if let Some(terms) = adopted {
            self.tell.say(Heard::Terms(applied.version, terms));
        }
        self.session.applied(applied);
    }
}

/// Moves a connection to a new socket; one that stays silent is closed.
///
/// # Errors
/// It is closed.
pub(super) async fn migrate(path: &Path) -> Result<(), NetError> {
    path.migrate()?;
    if path.answers_within(SUSPECT).await {
        return Ok(());
    }
    path.abandon();
    Err(NetError::Lost("silent after a change of network".to_owned()))
}
