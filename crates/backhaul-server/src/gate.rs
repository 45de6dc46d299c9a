//! The desk of one session: who its peer is, and what the scheduler says about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backhaul_net::link::Path;
use backhaul_net::{PeerIdentity, Role};
use backhaul_object::snapshot::Origin;
use backhaul_proto::errand::News;
use backhaul_proto::server::Request;
use backhaul_proto::{Retry, end, wire};
use backhaul_schedule::Event;
use backhaul_schedule::brake::Added;
use backhaul_schedule::fleet::{Deferral, NotNow, Nudge, NudgeAnswer, Place, Session, Trigger, Via};
use backhaul_schedule::policy::units;
use backhaul_schedule::reach::{HasBattery, Nat, Sighting};
use backhaul_store::reserve;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::alerts::{Alert, AlertKind};
use crate::clock;
use crate::daemon::{Inner, lock};
use crate::desk::RESUMED;
use crate::errands::{Errand, Token};
use crate::fleet::{Client, Instance, LinkState, Machine, Met};
use crate::hub::Ear;
use crate::keep::braking;
use crate::rates::Throttle;
use crate::session::ingest::Made;
use crate::session::{self, Asked, Desk, Ending, EndingKind, Outcome};

/// How long a copy of a client's identity is told to stay away, in seconds.
const COPY_AFTER: u64 = 4 * 3_600;
/// Bytes of a machine's instance.
const INSTANCE: usize = 16;
/// A run shows at most so often that it goes on, in ms.
const PROGRESS_EVERY_MS: u64 = 20_000;
/// That a client was seen is written down so often, in seconds: a herd must not wait for the disk.
const SEEN_EVERY: u64 = 30;
/// A refusal without an end is asked again after so many seconds.
const UNWILLING: u64 = 3_600;
/// A clock that is off by more seconds than this is worth a word.
const CLOCK_OFF: i64 = 300;

/// What a session that the server dialled is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The agent dialled: it says what it wants.
    Theirs,
    /// A run.
    Pull,
    /// A word.
    Knock(Nudge),
    /// A restore.
    Errand(Token),
}

/// Admits one session.
pub(crate) struct Gate<'s> {
    pub inner: &'s Arc<Inner>,
    pub session: Session,
    /// To where the peer is, which may move.
    pub path: Path,
    pub purpose: Purpose,
    /// When the run last showed that it goes on, in ms since boot.
    pub progress: AtomicU64,
    /// It is written down what the session came to.
    pub is_over: AtomicBool,
}

impl Gate<'_> {
    fn observed(&self) -> std::net::IpAddr {
        self.path.remote().ip().to_canonical()
    }

    /// Which machine this is: a second one with the same identity is named, and kept out.
    fn judge(&self, client: &Client, hello: &wire::Hello) -> Result<(), Ending> {
        if hello.instance.is_empty() {
            return Ok(());
        }
        if hello.instance.len() != INSTANCE {
            return Err(Ending::new(end::PROTOCOL, "an instance of a wrong length"));
        }
        let host = printable(hello.report.as_ref().map_or("", |report| report.host.as_str()), 64);
        let address = self.observed().to_string();
        let machine = Machine { instance: hello.instance.to_vec(), host, address };
        let now = clock::now();
        let judged =
            lock(&self.inner.fleet).judge_instance(client.id, &machine, now).map_err(Ending::from)?;
        match judged {
            Instance::Alone => Ok(()),
            Instance::First { copy } => {
                let text = format!(
                    "two machines use the identity of {}: {} at {}, which goes on, and {} at {}, which is not let in; \
                     add the second as a client of its own and let it join anew",
                    client.name, machine.host, machine.address, copy.host, copy.address
                );
                tracing::warn!("{text}");
                self.inner.raise(&Alert {
                    kind: AlertKind::Clone,
                    client: Some(client.id),
                    group: None,
                    text,
                    obstacle: String::new(),
                });
                Ok(())
            }
            Instance::Copy { first } => {
                let text = format!(
                    "this machine has a copy of the identity of {}, which {} at {} uses; on the server, `backhaul client \
                     add` a client of its own, remove the copied home and join anew",
                    client.name, first.host, first.address
                );
                let retry = Retry { after: COPY_AFTER, ..Retry::default() };
                Err(Ending { retry, ..Ending::new(end::CLONE, text) })
            }
        }
    }

    /// Tells the database and the scheduler that a client is here.
    fn meet(&self, client: &Client, hello: &wire::Hello) -> Result<(), Ending> {
        let ahead = hello.client_time as i64 - clock::now() as i64;
        if ahead.abs() > CLOCK_OFF {
            let (off, way) = (units::seconds(ahead.abs()), if ahead > 0 { "ahead" } else { "behind" });
            tracing::warn!(client = %client.name, "its clock is {off} {way}; the server's counts");
        }
        let report = hello.report.clone().unwrap_or_default();
        self.met(client, &report)?;
        if hello.intent() == wire::Intent::Browse {
            // Who only reads says nothing about backups.
            return self.inner.learn(client.id);
        }
        let via = if hello.intent() == wire::Intent::Attend { Via::Standing } else { Via::Visit };
        self.inner.learn(client.id)?;
        self.inner.applied(client, hello.terms_version, Ok(()));
        // A dial tells by its own event that the client is there.
        if self.purpose == Purpose::Theirs {
            let sighting = self.sighting(&report);
            self.inner.tell(Event::Contact(client.id.0, self.session, via, sighting));
            self.inner.ask_again(client.id);
        }
        if let Some(not_now) = hello.not_now.as_ref().filter(|_| self.purpose == Purpose::Theirs) {
            self.inner.tell(Event::Unwilling(client.id.0, not_now_of(not_now)));
        }
        Ok(())
    }

    fn met(&self, client: &Client, report: &wire::Report) -> Result<(), Ending> {
        let given = |text: &str| (!text.is_empty() && text.len() <= 128).then(|| text.to_owned());
        let listens = u16::try_from(report.listens_on).ok().filter(|port| *port > 0);
        let met = Met {
            observed: (self.purpose == Purpose::Theirs).then(|| self.observed()),
            // Behind NAT its listener is at an address that nobody can dial.
            reported: listens
                .filter(|_| report.source.parse() == Ok(self.observed()))
                .map(|port| SocketAddr::new(self.observed(), port).to_string()),
            zone: given(&report.zone),
        };
        let known = (client.observed, &client.reported, &client.zone);
        let same = (met.observed.or(known.0), &met.reported, &met.zone) == known;
        let lately = client.seen_at.is_some_and(|at| clock::now() < at + SEEN_EVERY);
        if same && lately {
            return Ok(());
        }
        lock(&self.inner.fleet).seen(client.id, &met, clock::now()).map_err(Ending::from)
    }

    fn on_reply(&self, client: &Client, reply: &wire::NudgeReply) {
        let answered = |answer| Event::NudgeAnswered(client.id.0, reply.id, answer);
        self.inner.tell(match (reply.answer(), &reply.not_now) {
            (wire::NudgeAnswer::NotNow, Some(not_now)) => {
                // Whoever asked for a run and waits for it is told why there is none.
                let not_now = not_now_of(not_now);
                let why = format!("not now: {}", not_now.reason);
                let failed = lock(&self.inner.fleet).fail_queued(client.id, &why, clock::now());
                self.inner.complain(failed);
                Event::Unwilling(client.id.0, not_now)
            }
            (wire::NudgeAnswer::Accepted, _) => answered(NudgeAnswer::Accepted),
            _ => answered(NudgeAnswer::Needless),
        });
    }

    fn on_report(&self, client: &Client, report: &wire::Report) {
        if self.met(client, report).and_then(|()| self.inner.learn(client.id)).is_err() {
            // What the database does not take is logged there, and asked again at the next report.
            return;
        }
        let sighting = self.sighting(report);
        self.inner.tell(Event::Contact(client.id.0, self.session, Via::Standing, sighting));
        self.inner.tell_verdict(client.id, self.session);
    }

    fn sighting(&self, report: &wire::Report) -> Sighting {
        let network = <[u8; 8]>::try_from(&report.network[..]).map_or(0, u64::from_le_bytes);
        let nat = match report.source.parse::<std::net::IpAddr>() {
            Ok(source) if source == self.observed() => Nat::No,
            Ok(_) => Nat::Yes,
            Err(_) => Nat::Unknown,
        };
        let power = match report.supply() {
            wire::Supply::Unknown => HasBattery::Unknown,
            wire::Supply::Wall => HasBattery::No,
            wire::Supply::Charging | wire::Supply::Battery => HasBattery::Yes,
        };
        Sighting { network, nat, power }
    }
}

/// What a peer says, for people: without what a terminal would obey, and not too long.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(limit).collect()
}

fn not_now_of(not_now: &wire::NotNow) -> NotNow {
    let seconds = if not_now.for_seconds == 0 { UNWILLING } else { not_now.for_seconds };
    let reason = printable(&not_now.reason, 200);
    NotNow { reason, until: (clock::now().saturating_add(seconds)).min(i64::MAX as u64) as i64 }
}

fn trigger_of(trigger: wire::Trigger) -> (Trigger, &'static str) {
    match trigger {
        wire::Trigger::Manual => (Trigger::Manual, "manual"),
        wire::Trigger::Join => (Trigger::Join, "join"),
        wire::Trigger::Timer => (Trigger::Timer, "timer"),
        wire::Trigger::Nudge => (Trigger::Nudge, "nudge"),
        wire::Trigger::Resume => (Trigger::Resume, RESUMED),
        wire::Trigger::Dialled => (Trigger::Timer, "dialled"),
    }
}

impl Desk for Gate<'_> {
    fn admit(&self, peer: &PeerIdentity, hello: &wire::Hello) -> Result<Client, Ending> {
        let operator = peer.role == Role::Operator;
        let name = if operator { &hello.client } else { &peer.name };
        let found = lock(&self.inner.fleet).client(name).map_err(Ending::from)?;
        let client = session::identify(peer, hello, found)?;
        if operator {
            return Ok(client);
        }
        self.inner.hub.name(self.session, client.id, clock::boot_ms())?;
        if hello.intent() == wire::Intent::Browse && reserve::is_spent(self.inner.vault.vault.dir()) {
            // People get their files back though who comes cannot be written down.
            tracing::warn!(client = %client.name, "the disk is full: that it reads is not written down");
            return Ok(client);
        }
        self.judge(&client, hello)?;
        self.meet(&client, hello)?;
        Ok(client)
    }

    fn ask(&self, client: &Client, hello: &wire::Hello) -> Result<Asked, Ending> {
        self.inner.note_trigger(client.id, trigger_of(hello.trigger()).1);
        if let Purpose::Knock(nudge) = self.purpose {
            return Ok(Asked::Nudge(nudge));
        }
        if let Some(not_now) = &hello.not_now {
            let NotNow { reason, until } = not_now_of(not_now);
            let after = u64::try_from(until).unwrap_or(0).saturating_sub(clock::now());
            let retry = Retry { after, ..Retry::default() };
            return Err(Ending { kind: EndingKind::NotNow, retry, ..Ending::new(end::AGENT, reason) });
        }
        if self.purpose == Purpose::Pull || !self.inner.decides() {
            return Ok(Asked::Granted);
        }
        let since = self.inner.tickets.read(client.id, &hello.ticket);
        let said = self.inner.hub.listen(self.session);
        let (trigger, _) = trigger_of(hello.trigger());
        self.inner.tell(Event::Request(client.id.0, self.session, trigger, since));
        Ok(Asked::Waits(said))
    }

    async fn begin(&self, client: &Client) -> Result<(), Ending> {
        self.inner.hub.take_writing(client.id, self.session).await?;
        let (initiator, link) = match self.purpose {
            Purpose::Theirs => ("client", LinkState::Push),
            Purpose::Pull | Purpose::Knock(_) | Purpose::Errand(_) => ("server", LinkState::Dial),
        };
        self.inner.begin_run(client.id, initiator, link)
    }

    fn attend(&self, client: &Client) -> Ear {
        tracing::info!(client = %client.name, address = %self.path.remote(), "linked");
        // They are in the welcome.
        self.inner.with_dispatch(|dispatch| dispatch.new_terms(client));
        self.inner.hub.listen(self.session)
    }

    fn heard(&self, client: &Client, what: &Request) {
        match what {
            Request::Report(report) => self.on_report(client, report),
            Request::NotNow(not_now) => self.inner.tell(Event::Unwilling(client.id.0, not_now_of(not_now))),
            Request::NudgeReply(reply) => self.on_reply(client, reply),
            Request::Applied(applied) => {
                let result = if applied.error.is_empty() { Ok(()) } else { Err(end::AGENT) };
                if let Err(code) = result {
                    tracing::warn!(client = %client.name, code, "terms {}: {}", applied.version, applied.error);
                }
                self.inner.applied(client, applied.version, result);
            }
            _ => {}
        }
    }

    fn committed(&self, client: &Client, made: &Made) {
        let mut fleet = lock(&self.inner.fleet);
        let noted = fleet.running(client.id).and_then(|run| match run {
            Some(run) => fleet.end_run(run.id, made.row.id, made.errors, clock::now()),
            None => Ok(()),
        });
        self.inner.complain(noted);
        let noted = match made.origin {
            Origin::Files => {
                braking::note(&mut fleet, &self.inner.vault, client, &made.profile, clock::now())
            }
            // Says nothing of what became of the files.
            Origin::Stream => Ok(()),
        };
        drop(fleet);
        self.inner.complain(noted);
        self.inner.courier.iter().for_each(|courier| courier.wake());
    }

    fn unfinished(&self, client: &Client, added: Added) {
        let noted = lock(&self.inner.fleet).add_unfinished(client.id, added);
        self.inner.complain(noted);
    }

    fn over(&self, client: &Client, outcome: &Outcome) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.inner.ended(client.id, self.session, outcome);
        }
    }

    fn goes_on(&self, client: &Client) {
        let (now, last) = (clock::boot_ms(), self.progress.load(Ordering::Relaxed));
        if now < last + PROGRESS_EVERY_MS {
            return;
        }
        self.progress.store(now, Ordering::Relaxed);
        self.inner.tell(Event::Progress(client.id.0, self.session));
    }

    fn place(&self, client: &Client) -> Option<Place> {
        self.inner.with_dispatch(|dispatch| dispatch.place(client.id)).flatten()
    }

    fn queued(&self, client: &Client, place: &Place) -> wire::Queued {
        wire::Queued {
            position: place.position as u64,
            eta: place.eta,
            why: place.why.to_string(),
            ticket: self.inner.tickets.issue(client.id, place.since).into(),
        }
    }

    fn deferred(&self, client: &Client, deferral: &Deferral) -> Ending {
        let Deferral { after, since, why } = deferral;
        let ticket = since.map(|since| self.inner.tickets.issue(client.id, since)).unwrap_or_default();
        let text = format!("not now: {why}; come back in {after} s");
        Ending { retry: Retry { after: *after, ticket: ticket.into() }, ..Ending::new(end::BUSY, text) }
    }

    fn verdict(&self, client: &Client) -> wire::Verdict {
        self.inner.with_dispatch(|dispatch| dispatch.verdict(client.id)).unwrap_or_default()
    }

    fn terms(&self, client: &Client) -> wire::Terms {
        self.inner.with_dispatch(|dispatch| dispatch.terms(client)).unwrap_or_default()
    }

    fn due_after_success(&self, client: &Client) -> u64 {
        self.inner.with_dispatch(|dispatch| dispatch.due_after_success(client.id)).unwrap_or(0)
    }

    fn errand(&self, client: &Client, hello: &wire::Hello) -> Option<Errand> {
        match &self.purpose {
            Purpose::Errand(token) => self.inner.errands.claim(token, client.id),
            _ => self.inner.errands.claim(&hello.errand, client.id),
        }
    }

    fn order(&self, from: &Client, order: wire::RestoreOrder) -> UnboundedReceiver<News> {
        self.inner.order(from, order)
    }

    fn observed(&self) -> SocketAddr {
        self.path.remote()
    }

    fn throttle(&self) -> Throttle {
        let (inner, path) = (Arc::clone(self.inner), self.path.clone());
        Throttle::new(move || {
            let address = path.remote().ip().to_canonical();
            let group = inner.with_dispatch(|dispatch| dispatch.policies().group(address));
            group.map(|group| lock(&inner.rates).of(&group)).unwrap_or_default()
        })
    }
}
