//! The daemon of a client: it senses the machine, lets [`crate::attend`] decide, and carries out what that orders.
//!
//! One loop takes everything that happens: signals, words of the server, ends of runs, time. Timers stand still while
//! the machine sleeps, so none is longer than [`TICK`].

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backhaul_net::Link;
use backhaul_net::link::{Hangup, Path};
use backhaul_object::source::TransferError;
use backhaul_proto::wire;
use tokio::sync::mpsc;

use crate::attend::{Attendant, End, Gate, Happening, NudgeReply, Order, Trigger};
use crate::clock;
use crate::error::AgentError;
use crate::gates::{self, Conditions, Urgency, Verdict};
use crate::home::AgentHome;
use crate::inhibit::Inhibitor;
use crate::introduce;
use crate::priority::Priority;
use crate::remote::Limits;
use crate::run::{self, Passage, RunReport, RunRequest};
use crate::signals::power::Supply;
use crate::signals::{Senses, Signal, Signals};

mod link;
mod listener;

use link::{Heard, Wanted};
use listener::Ear;

/// Longest sleep of the loop: after the machine has slept, this passes before it notices.
const TICK: Duration = Duration::from_secs(5);

/// What becomes of runs: told to whoever runs the daemon.
pub type Told = dyn Fn(&Result<RunReport, AgentError>) + Send + Sync;

/// The running daemon of a client.
pub struct AgentDaemon {
    home: AgentHome,
    ear: Option<Ear>,
    told: Arc<Told>,
    /// The run that is going on: a new dial of the server means that it has given this one up.
    current: Mutex<Option<Hangup>>,
    turn: tokio::sync::Mutex<()>,
    /// Connections of runs, to be moved when the network changes.
    paths: Arc<Mutex<Vec<Path>>>,
}

impl AgentDaemon {
    /// Starts to listen, if it is to be dialled at all.
    ///
    /// # Errors
    /// Not joined, or the address is taken.
    pub fn start(home: &AgentHome, listen: Option<SocketAddr>, told: Arc<Told>) -> Result<Self, AgentError> {
        home.config()?;
        let ear = listen.map(|listen| Ear::open(home, listen)).transpose()?;
        let (current, turn, paths) = (Mutex::default(), tokio::sync::Mutex::default(), Arc::default());
        Ok(Self { home: home.clone(), ear, told, current, turn, paths })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> Result<Option<SocketAddr>, AgentError> {
        self.ear.as_ref().map(Ear::address).transpose()
    }

    /// Runs until the future is dropped.
    ///
    /// # Errors
    /// The config cannot be read.
    pub async fn run(self: &Arc<Self>, senses: Senses) -> Result<(), AgentError> {
        let (tell, heard) = mpsc::unbounded_channel();
        let listening = Arc::clone(self).listen(tell.clone());
        let watch = self.watch(senses, tell, heard);
        tokio::select! {
            result = watch => result,
            result = listening => result,
        }
    }

    /// Tells peers goodbye.
    pub async fn stop(&self) {
        if let Some(ear) = &self.ear {
            ear.close().await;
        }
    }

    async fn watch(
        self: &Arc<Self>,
        senses: Senses,
        tell: mpsc::UnboundedSender<Heard>,
        mut heard: mpsc::UnboundedReceiver<Heard>,
    ) -> Result<(), AgentError> {
        let servers = Arc::new(Mutex::new(resolve(&self.home.config()?.servers).await));
        let towards = Arc::clone(&servers);
        let (signals, mut changes) = Signals::start(Arc::new(move || lock(&towards).clone()), senses);
        let (_, terms) = self.home.terms();
        if terms.yields {
            Priority::Low.apply();
        }
        let mut desk = Desk {
            daemon: Arc::clone(self),
            attendant: Attendant::new(terms, RandomState::new().build_hasher().finish()),
            signals,
            tell,
            link: None,
            gates: (Gate::Open, Gate::Open),
            lateness: 0.0,
        };
        desk.happen(Happening::Started);
        loop {
            let now = clock::clocks().boot_ms;
            let due = desk.attendant.deadline().map(|at| Duration::from_millis(at.saturating_sub(now)));
            tokio::select! {
                Some(signal) = changes.recv() => {
                    if matches!(signal, Signal::Network(_)) {
                        *lock(&servers) = resolve(&self.home.config()?.servers).await;
                    }
                    desk.on_signal(signal);
                }
                Some(heard) = heard.recv() => desk.on_heard(heard),
                () = tokio::time::sleep(due.unwrap_or(TICK).min(TICK)) => desk.happen(Happening::Tick),
            }
        }
    }

    /// Serves dials of the server.
    async fn listen(self: Arc<Self>, tell: mpsc::UnboundedSender<Heard>) -> Result<(), AgentError> {
        let Some(ear) = &self.ear else { return std::future::pending().await };
        loop {
            let Some(pending) = ear.next(&self.home.config()?).await else { return Ok(()) };
            let (daemon, tell) = (Arc::clone(&self), tell.clone());
            tokio::spawn(async move {
                if let Some(link) = listener::establish(pending).await {
                    daemon.on_dial(link, &tell).await;
                }
            });
        }
    }

    /// One dial of the server: a run, or a nudge.
    async fn on_dial(self: &Arc<Self>, link: Link, tell: &mpsc::UnboundedSender<Heard>) {
        let happened = |happening| drop(tell.send(Heard::Happened(happening)));
        let Ok(config) = self.home.config() else { return link.close("this agent has lost its config") };
        let (terms, conditions) = (self.home.terms().1, self.conditions_without_signals());
        let gate = gates::decide(&terms, &conditions, 0.0, Urgency::Automatic, clock::now() as i64);
        let refused =
            config.refuse_pulls.then(|| "this agent refuses to be pulled (refuse_pulls)".to_owned());
        let reason = refused.or(match gate {
            Verdict::Open { .. } => None,
            Verdict::Shut { reason, .. } => Some(reason.to_string()),
        });
        let older = lock(&self.current).replace(link.hangup());
        if let Some(older) = older {
            older.close("the server has dialled again");
        }
        let _turn = self.turn.lock().await;
        let not_now = reason.map(|reason| wire::NotNow { reason, for_seconds: 0 });
        let passage = self.passage(wire::Trigger::Dialled, Vec::new(), not_now, &conditions);
        let request = RunRequest { passage, ..RunRequest::default() };
        let Some(ear) = &self.ear else { return };
        happened(Happening::Pulled);
        let outcome = run::run(&self.home, link, &ear.identity, &config.servers, &request).await;
        let outcome = match outcome {
            // What the local state said is not there any more: all is read again, in the same run.
            Err(AgentError::Transfer(TransferError::Stale)) => {
                let again = Passage { trigger: wire::Trigger::Resume, ..request.passage.clone() };
                run::push_afresh(&self.home, &config.servers, &RunRequest { passage: again, ..request }).await
            }
            other => other,
        };
        match &outcome {
            Err(AgentError::Nudged { id, by_hand }) => {
                happened(Happening::Ended(End::Needless));
                happened(Happening::Nudged { id: *id, by_hand: *by_hand });
            }
            Err(AgentError::NotNow(_)) => happened(Happening::Ended(End::Needless)),
            _ => {
                (self.told)(&outcome);
                happened(Happening::Ended(end_of(&outcome)));
            }
        }
    }

    /// How the machine stands, where no signals are at hand: what the user has said, and the power.
    fn conditions_without_signals(&self) -> Conditions {
        Conditions {
            power: crate::signals::power::read(&Senses::default().power),
            paused_until: self.home.paused_until(),
            ..Conditions::default()
        }
    }

    fn passage(
        &self,
        trigger: wire::Trigger,
        ticket: Vec<u8>,
        not_now: Option<wire::NotNow>,
        conditions: &Conditions,
    ) -> Passage {
        let (_, terms) = self.home.terms();
        let gate = gates::decide(&terms, conditions, f64::INFINITY, Urgency::Automatic, clock::now() as i64);
        let cap = if let Verdict::Open { cap } = gate { cap } else { None };
        Passage {
            trigger,
            ticket,
            not_now,
            report: Some(introduce::report(conditions, self.port())),
            limits: Limits { per_s: terms.limit_upload.and_then(NonZeroU64::new), cap },
            paths: Arc::clone(&self.paths),
            waiting: Some(Arc::new(|queued| {
                tracing::info!("waits for a slot: {} before it; {}", queued.position, queued.why);
            })),
        }
    }

    fn port(&self) -> u16 {
        self.ear.as_ref().and_then(|ear| ear.address().ok()).map_or(0, |address| address.port())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses of the server's names; those that are not known now are left out.
async fn resolve(servers: &[String]) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for server in servers {
        if let Ok(found) = tokio::net::lookup_host(server).await {
            all.extend(found);
        }
    }
    all
}

fn end_of(outcome: &Result<RunReport, AgentError>) -> End {
    match outcome {
        Ok(report) => End::Done { due_in: report.due_in },
        Err(AgentError::Deferred { after, ticket, .. }) => {
            End::Deferred { after: *after, ticket: ticket.clone() }
        }
        Err(_) => End::Failed { ticket: Vec::new() },
    }
}

/// The machine that decides, with hands.
struct Desk {
    daemon: Arc<AgentDaemon>,
    attendant: Attendant,
    signals: Signals,
    tell: mpsc::UnboundedSender<Heard>,
    link: Option<mpsc::UnboundedSender<Wanted>>,
    gates: (Gate, Gate),
    lateness: f64,
}

impl Desk {
    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Network(network) => {
                self.happen(Happening::Network(network.map(|network| network.fingerprint)));
                self.report();
            }
            Signal::Woke { asleep_ms } => {
                tracing::info!("slept for {} s", asleep_ms / 1_000);
                self.happen(Happening::Woke);
            }
            Signal::Power(power) => {
                self.happen(Happening::Power(power.supply));
                self.report();
            }
            Signal::Metered(_) => self.report(),
            Signal::WallJumped { by_s } => {
                tracing::info!("the clock was set by {by_s} s");
                self.happen(Happening::Tick);
            }
        }
    }

    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Happened(happening) => self.happen(happening),
            Heard::Lateness(lateness) => self.lateness = lateness,
            Heard::Terms(version, terms) => {
                tracing::info!("keeps to policy version {version}");
                if terms.yields {
                    Priority::Low.apply();
                }
                self.happen(Happening::Terms(Box::new(terms)));
            }
        }
    }

    fn report(&self) {
        let report = introduce::report(&self.conditions(), self.daemon.port());
        self.want(Wanted::Report(report));
    }

    fn want(&self, wanted: Wanted) {
        if let Some(link) = &self.link {
            // A link that has gone has said so, or is about to.
            let _ = link.send(wanted);
        }
    }

    fn conditions(&self) -> Conditions {
        Conditions { paused_until: self.daemon.home.paused_until(), ..self.signals.now() }
    }

    fn gate(&self, urgency: Urgency) -> Gate {
        let (terms, now) = (self.attendant.terms(), clock::now() as i64);
        if self.daemon.home.config().is_ok_and(|config| config.paths.is_empty()) {
            return Gate::Shut { reason: "no paths to back up are configured".to_owned(), until: None };
        }
        match gates::decide(terms, &self.conditions(), self.lateness, urgency, now) {
            Verdict::Open { .. } => Gate::Open,
            Verdict::Shut { reason, until } => Gate::Shut { reason: reason.to_string(), until },
        }
    }

    /// Tells the machine what happened, and does what it orders.
    fn happen(&mut self, happening: Happening) {
        let gates = (self.gate(Urgency::Automatic), self.gate(Urgency::Manual));
        let now = clock::clocks().boot_ms;
        let mut orders = Vec::new();
        if gates != self.gates {
            self.gates = gates.clone();
            orders.extend(self.attendant.handle(now, Happening::Gates(gates.0, gates.1)));
        }
        orders.extend(self.attendant.handle(now, happening));
        for order in orders {
            tracing::debug!("order: {order:?}");
            self.carry_out(order);
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Dial => self.dial(),
            Order::Hang => {
                self.want(Wanted::Hang);
                self.link = None;
            }
            Order::Migrate => self.migrate(),
            Order::Push { trigger, ticket } => self.push(trigger, ticket),
            Order::Reply { id, reply } => self.want(Wanted::Reply(reply_of(id, reply))),
            Order::Unwilling { reason, until } => self.want(Wanted::NotNow(not_now(reason, until))),
        }
    }

    fn dial(&mut self) {
        let home = &self.daemon.home;
        let hello = introduce::hello(home, wire::Trigger::Timer);
        let not_now = match &self.gates.0 {
            Gate::Open => None,
            Gate::Shut { reason, until } => Some(not_now(reason.clone(), *until)),
        };
        let report = Some(introduce::report(&self.conditions(), self.daemon.port()));
        let hello = wire::Hello { report, not_now, ..hello };
        let keep_alive = Duration::from_secs(self.attendant.terms().keepalive.clamp(5, 120).unsigned_abs());
        let (link, wanted) = mpsc::unbounded_channel();
        self.link = Some(link);
        tokio::spawn(link::run(home.clone(), hello, keep_alive, wanted, self.tell.clone()));
    }

    fn migrate(&self) {
        self.want(Wanted::Migrate);
        let paths: Vec<Path> =
            lock(&self.daemon.paths).iter().filter(|path| path.is_open()).cloned().collect();
        for path in paths {
            tokio::spawn(async move { link::migrate(&path).await });
        }
    }

    fn push(&self, trigger: Trigger, ticket: Vec<u8>) {
        let trigger = match trigger {
            Trigger::Join => wire::Trigger::Join,
            Trigger::Timer => wire::Trigger::Timer,
            Trigger::Nudge => wire::Trigger::Nudge,
        };
        let (daemon, tell, conditions) = (Arc::clone(&self.daemon), self.tell.clone(), self.conditions());
        tokio::spawn(async move {
            let _turn = daemon.turn.lock().await;
            let passage = daemon.passage(trigger, ticket, None, &conditions);
            let request = RunRequest { passage, ..RunRequest::default() };
            let on_mains = conditions.power.supply == Supply::Mains;
            let awake = if on_mains { Inhibitor::hold("a backup is under way").await } else { None };
            let outcome = match daemon.home.config() {
                Ok(config) => run::push(&daemon.home, &config.servers, &request).await,
                Err(error) => Err(error),
            };
            drop(awake);
            match &outcome {
                Err(AgentError::Deferred { why, .. }) => tracing::info!("{why}"),
                _ => (daemon.told)(&outcome),
            }
            // The daemon may be gone.
            let _ = tell.send(Heard::Happened(Happening::Ended(end_of(&outcome))));
        });
    }
}

fn not_now(reason: String, until: Option<i64>) -> wire::NotNow {
    let left = until.map_or(0, |until| u64::try_from(until - clock::now() as i64).unwrap_or(1));
    wire::NotNow { reason, for_seconds: left }
}

fn reply_of(id: u64, reply: NudgeReply) -> wire::NudgeReply {
    let (answer, not_now) = match reply {
        NudgeReply::Accepted => (wire::NudgeAnswer::Accepted, None),
        NudgeReply::Running => (wire::NudgeAnswer::Running, None),
        NudgeReply::NotNow { reason, until } => (wire::NudgeAnswer::NotNow, Some(not_now(reason, until))),
    };
    wire::NudgeReply { id, answer: answer.into(), not_now }
}
