//! The daemon of a client: it senses the machine, lets [`crate::attend`] decide, and carries out what that orders.
//!
//! One loop takes everything that happens: signals, words of the server, ends of runs, time. Timers stand still while
//! the machine sleeps, so none is longer than [`TICK`].

use std::fs::File;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backhaul_net::Link;
use backhaul_net::link::Hangup;
use backhaul_object::source::TransferError;
use backhaul_proto::wire;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::attend::{End, Happening};
use crate::clock;
use crate::error::AgentError;
use crate::gates::{self, Conditions, Urgency, Verdict};
use crate::home::{AgentHome, Config};
use crate::inhibit;
use crate::introduce;
use crate::remote::{Cost, Limits};
use crate::run::{self, Passage, RunReport, RunRequest};
use crate::signals::metered::Metered;
use crate::signals::{Senses, Signal, Signals};
use crate::terms;
use crate::ways::Ways;

mod desk;
mod errands;
mod link;
mod listener;
mod servers;
mod settings;

use desk::Desk;
use link::{Heard, Said, Wanted};
use listener::Ear;
use servers::Servers;
use settings::Settings;

/// Longest sleep of the loop: after the machine has slept, this passes before it notices.
const TICK: Duration = Duration::from_secs(5);
/// How long the goodbyes of runs may take, and then what else has to end.
const FAREWELL: Duration = Duration::from_secs(3);
const GOODBYE: Duration = Duration::from_secs(1);
const STOPPING: &str = "the agent is stopping";

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
    /// Connections of runs.
    ways: Ways,
    settings: Arc<Settings>,
    /// One restore at a time.
    restoring: tokio::sync::Mutex<()>,
    /// The newest link to the server.
    standing: Mutex<Option<Standing>>,
    /// Another daemon of this home has to wait for the end of this one.
    claim: Mutex<Option<File>>,
}

/// A link to the server, or a dial for one.
struct Standing {
    wanted: mpsc::UnboundedSender<Wanted>,
    task: JoinHandle<()>,
}

/// How this machine stands, for whoever asks.
struct Outlook {
    home: AgentHome,
    signals: Signals,
    /// How old the newest snapshot is, in limits of the policy, as the server said last.
    lateness: Mutex<f64>,
}

impl Outlook {
    fn conditions(&self) -> Conditions {
        Conditions { paused_until: self.home.paused_until(), ..self.signals.now() }
    }
}

impl AgentDaemon {
    /// Starts to listen, if it is to be dialled at all.
    ///
    /// # Errors
    /// Not joined, the address is taken, or another daemon of this home runs.
    pub fn start(home: &AgentHome, listen: Option<SocketAddr>, told: Arc<Told>) -> Result<Self, AgentError> {
        let settings = Arc::new(Settings::open(home)?);
        let claim = Mutex::new(Some(home.lock_daemon()?));
        let ear = listen.map(|listen| Ear::open(home, listen)).transpose()?;
        let (current, turn, restoring) =
            (Mutex::default(), tokio::sync::Mutex::default(), tokio::sync::Mutex::default());
        let (ways, standing) = (Ways::default(), Mutex::default());
        Ok(Self { home: home.clone(), ear, told, current, turn, ways, settings, restoring, standing, claim })
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
    /// None at present: what is wrong with the config is logged, and the last good one kept.
    pub async fn run(self: &Arc<Self>, senses: Senses) -> Result<(), AgentError> {
        let (tell, heard) = mpsc::unbounded_channel();
        let servers = Servers::find(Arc::clone(&self.settings)).await;
        let (signals, changes) = Signals::start(servers.towards(), senses);
        let outlook = Arc::new(Outlook { home: self.home.clone(), signals, lateness: Mutex::default() });
        let listening = Arc::clone(self).listen(tell.clone(), Arc::clone(&outlook));
        let desk = Desk::new(Arc::clone(self), outlook, tell);
        tokio::select! {
            () = watch(desk, &servers, changes, heard) => {}
            () = listening => {}
        }
        Ok(())
    }

    /// Says goodbye to everybody, so that nobody waits for this machine.
    pub async fn stop(&self) {
        let standing = lock(&self.standing).take();
        self.ways.leave(STOPPING, FAREWELL).await;
        let farewell = async {
            if let Some(Standing { wanted, task }) = standing {
                // A link that has gone needs no goodbye.
                let _ = wanted.send(Wanted::Hang);
                let _ = task.await;
            }
            drop(self.turn.lock().await);
        };
        let _ = tokio::time::timeout(GOODBYE, farewell).await;
        if let Some(ear) = &self.ear {
            ear.close().await;
        }
        lock(&self.claim).take();
    }

    /// Serves dials of the server.
    async fn listen(self: Arc<Self>, tell: mpsc::UnboundedSender<Said>, outlook: Arc<Outlook>) {
        let Some(ear) = &self.ear else { return std::future::pending().await };
        loop {
            let Some(pending) = ear.next(&self.settings).await else { return };
            let (daemon, tell, outlook) = (Arc::clone(&self), tell.clone(), Arc::clone(&outlook));
            tokio::spawn(async move {
                if let Some(link) = listener::establish(pending).await {
                    daemon.on_dial(link, &tell, &outlook).await;
                }
            });
        }
    }

    /// One dial of the server: a run, or a nudge.
    async fn on_dial(&self, link: Link, tell: &mpsc::UnboundedSender<Said>, outlook: &Outlook) {
        let happened = |happening| drop(tell.send(Said { link: None, heard: Heard::Happened(happening) }));
        let Some(ear) = &self.ear else { return };
        let older = lock(&self.current).replace(link.hangup());
        if let Some(older) = older {
            older.close("the server has dialled again");
        }
        let _turn = self.turn.lock().await;
        if !link.path().is_open() {
            // The server has given up while it waited.
            return;
        }
        let (config, conditions) = (self.settings.config(), outlook.conditions());
        let not_now = self.unwilling(&config, &conditions, *lock(&outlook.lateness));
        let is_unwilling = not_now.is_some();
        let passage = self.passage((wire::Trigger::Dialled, Vec::new()), not_now, &conditions, tell);
        let request = match RunRequest::of(&config, passage) {
            Ok(request) => request,
            Err(error) => {
                link.close(&error.to_string());
                return (self.told)(&Err(error));
            }
        };
        happened(Happening::Pulled);
        let awake = if is_unwilling { None } else { inhibit::during_run(&conditions).await };
        let outcome = run::run(&self.home, link, &ear.identity, &config.servers, &request).await;
        let outcome = match outcome {
            // What the local state said is not there any more: all is read again, in the same run.
            Err(AgentError::Transfer(TransferError::Stale)) => {
                let again = Passage { trigger: wire::Trigger::Resume, ..request.passage.clone() };
                run::push_afresh(
                    &self.home,
                    &config.servers,
                    &RunRequest { passage: again, ..request.clone() },
                )
                .await
            }
            other => other,
        };
        drop(awake);
        if let Err(AgentError::Errand(remote)) = outcome {
            happened(Happening::Ended(End::Needless));
            return self.restore(*remote).await;
        }
        match &outcome {
            Err(AgentError::Nudged { id, by_hand }) => {
                happened(Happening::Ended(End::Needless));
                happened(Happening::Nudged { id: *id, by_hand: *by_hand });
            }
            // There was to be none: whatever ended it is no failure.
            Err(_) if is_unwilling => happened(Happening::Ended(End::Needless)),
            Err(AgentError::Deferred { why, .. }) => {
                tracing::info!("{why}");
                happened(Happening::Ended(end_of(&outcome, &request.passage.kept)));
            }
            _ => {
                (self.told)(&outcome);
                happened(Happening::Ended(end_of(&outcome, &request.passage.kept)));
            }
        }
    }

    /// Why a run that the server dials for is not to be.
    fn unwilling(&self, config: &Config, conditions: &Conditions, lateness: f64) -> Option<wire::NotNow> {
        let now = clock::now() as i64;
        if config.refuse_pulls {
            let reason = "this agent refuses to be pulled (refuse_pulls)".to_owned();
            return Some(wire::NotNow { reason, for_seconds: 0 });
        }
        match gates::decide(&self.home.terms().1, conditions, lateness, Urgency::Automatic, now) {
            Verdict::Open => None,
            Verdict::Shut { reason, until } => Some(not_now(reason.to_string(), until)),
        }
    }

    fn passage(
        &self,
        (trigger, ticket): (wire::Trigger, Vec<u8>),
        not_now: Option<wire::NotNow>,
        conditions: &Conditions,
        tell: &mpsc::UnboundedSender<Said>,
    ) -> Passage {
        let (home, tell) = (self.home.clone(), tell.clone());
        let adopting = move |terms: &wire::Terms| {
            // A machine that is only pulled hears of them nowhere else for hours.
            if home.terms().0 == terms.version {
                return None;
            }
            let (adopted, applied) = terms::adopt(&home, terms);
            if let Some(terms) = adopted {
                let _ = tell.send(Said { link: None, heard: Heard::Terms(applied.version, terms) });
            }
            Some(applied)
        };
        let cost = if conditions.metered == Metered::Yes { Cost::Metered } else { Cost::Free };
        Passage {
            trigger,
            kept: Arc::new(Mutex::new(ticket.clone())),
            ticket,
            not_now,
            report: Some(introduce::report(conditions, self.port())),
            terms: Some(Arc::new(adopting)),
            limits: Limits { asked: None, cost },
            ways: self.ways.clone(),
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

async fn watch(
    mut desk: Desk,
    servers: &Servers,
    mut changes: mpsc::Receiver<Signal>,
    mut heard: mpsc::UnboundedReceiver<Said>,
) {
    desk.happen(Happening::Started);
    loop {
        let now = clock::clocks().boot_ms;
        let due = desk.deadline().map(|at| Duration::from_millis(at.saturating_sub(now)));
        tokio::select! {
            Some(signal) = changes.recv() => {
                if matches!(signal, Signal::Network(_)) {
                    servers.look_again();
                }
                desk.on_signal(signal);
            }
            Some(said) = heard.recv() => {
                if matches!(said.heard, Heard::Happened(Happening::NotReached)) {
                    servers.look_again();
                }
                desk.on_said(said);
            }
            () = tokio::time::sleep(due.unwrap_or(TICK).min(TICK)) => desk.happen(Happening::Tick),
        }
    }
}

fn not_now(reason: String, until: Option<i64>) -> wire::NotNow {
    let left = until.map_or(0, |until| u64::try_from(until - clock::now() as i64).unwrap_or(1));
    wire::NotNow { reason, for_seconds: left }
}

fn end_of(outcome: &Result<RunReport, AgentError>, kept: &Mutex<Vec<u8>>) -> End {
    match outcome {
        Ok(report) => End::Done { due_in: report.due_in },
        Err(AgentError::Deferred { after, ticket, .. }) => {
            End::Deferred { after: *after, ticket: ticket.clone() }
        }
        Err(_) => End::Failed { ticket: lock(kept).clone() },
    }
}
