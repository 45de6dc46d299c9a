//! The running server: accepts, dials, polls the fleet, stops.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backhaul_net::authority::Authority;
use backhaul_net::endpoint::{Accepted, Listener, Pending};
use backhaul_net::enrol::{Applicant, Application};
use backhaul_net::{Identity, Link, Role};
use backhaul_object::ids::ClientId;
use backhaul_schedule::fleet::Session;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinHandle};

use crate::alerts::courier::Courier;
use crate::chores::worker::Worker;
use crate::clock::{self, Stopwatch};
use crate::dispatch::Dispatch;
use crate::enrolment;
use crate::errands::Errands;
use crate::error::ServerError;
use crate::fleet::{ClientState, Fleet};
use crate::gate::{Gate, Purpose};
use crate::home::ServerHome;
use crate::hub::{Hub, SUPERSEDE, Which};
use crate::rates::Rates;
use crate::scrub;
use crate::session::{self, Desk, OpenVault};
use crate::ticket::TicketKey;

/// How often the fleet database is looked at: what the command line changes takes effect within this.
pub const POLL: Duration = Duration::from_millis(250);
/// Sessions at once.
const SESSIONS_MAX: usize = 20_000;
/// Dials of which it is not known yet who they are.
const KNOCKING_MAX: usize = 256;
/// How long running backups may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(45);

/// What a started server is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Everything: it dials, decides who may push, and carries out what the command line asks for.
    Full,
    /// One command of its own machine: it answers, and starts nothing.
    OneCommand,
}

pub(crate) struct Inner {
    pub fleet: Mutex<Fleet>,
    /// None when the server is there for one command.
    pub dispatch: Option<Mutex<Dispatch>>,
    pub vault: Arc<OpenVault>,
    pub dialler: Identity,
    pub hub: Hub,
    pub errands: Errands,
    pub scrub: scrub::Setting,
    pub tickets: TicketKey,
    pub rates: Mutex<Rates>,
    /// Dials under way.
    pub dials: Mutex<HashMap<ClientId, AbortHandle>>,
    /// What made each client's run begin.
    pub triggers: Mutex<HashMap<ClientId, &'static str>>,
    /// When each client's run began.
    pub begun: Mutex<HashMap<ClientId, Stopwatch>>,
    pub courier: Option<Courier>,
    /// What is long ends where it is.
    stopping: AtomicBool,
    authority: Authority,
    listener: Listener,
    home: ServerHome,
    knocking: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
}

/// A running server.
pub struct Server {
    inner: Arc<Inner>,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
    /// None when the server is there for one command.
    worker: Option<Worker>,
    _lock: File,
}

impl Server {
    /// Opens the home and starts to listen; `listen` overrides the config.
    ///
    /// # Errors
    /// No home, in use, damaged, or the address is taken.
    pub async fn start(home: &ServerHome, listen: Option<&str>, duty: Duty) -> Result<Self, ServerError> {
        let config = home.config()?;
        let lock = home.lock()?;
        let vault = Arc::new(OpenVault::new(home.vault()?, &home.vault_key()?));
        if duty == Duty::Full {
            vault.vault.keep_reserve()?;
        }
        let listen = listen.unwrap_or(&config.listen);
        let address: SocketAddr = listen.parse().map_err(|_| ServerError::File {
            path: home.dir().join("config.toml"),
            why: format!("listen = {listen:?} is no ADDRESS:PORT"),
        })?;
        let fleet = home.fleet()?;
        let listener = Listener::server(address, &home.identity(Role::Server)?, &fleet.key("quic-reset")?)?;
        let address = listener.address()?;
        fleet.forget_links()?;
        if duty == Duty::OneCommand {
            fleet.fail_open(None, "the server was stopped", clock::now())?;
        }
        let inner = Arc::new(Inner {
            dispatch: (duty == Duty::Full).then(Mutex::default),
            courier: if duty == Duty::Full { Some(Courier::start(home)?) } else { None },
            tickets: TicketKey::new(fleet.key("tickets")?),
            fleet: Mutex::new(fleet),
            vault,
            authority: home.authority()?,
            dialler: home.identity(Role::ServerDialler)?,
            listener,
            home: home.clone(),
            hub: Hub::default(),
            errands: Errands::default(),
            scrub: scrub::Setting::new(config.scrub.cycle().unwrap_or_default()),
            rates: Mutex::default(),
            dials: Mutex::default(),
            triggers: Mutex::default(),
            begun: Mutex::default(),
            stopping: AtomicBool::new(false),
            knocking: Arc::new(Semaphore::new(KNOCKING_MAX)),
            sessions: Arc::new(Semaphore::new(SESSIONS_MAX)),
        });
        // Before anybody is let in, the scheduler knows everybody.
        inner.clear_stale_alerts();
        inner.judge_missed();
        inner.refresh();
        let mut tasks =
            vec![tokio::spawn(accept(Arc::clone(&inner))), tokio::spawn(poll(Arc::clone(&inner)))];
        if duty == Duty::Full {
            tasks.push(tokio::spawn(scrub::run(Arc::clone(&inner))));
        }
        let worker = match duty {
            Duty::Full => {
                let bell = inner.courier.as_ref().map(Courier::bell);
                Some(Worker::start(home, Arc::clone(&inner.vault), bell)?)
            }
            Duty::OneCommand => None,
        };
        Ok(Self { inner, address, tasks, worker, _lock: lock })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads config and policies again.
    ///
    /// # Errors
    /// The config cannot be read: the old one stays in force.
    pub fn reload(&self) -> Result<(), ServerError> {
        let config = self.inner.home.config()?;
        if let Some(courier) = &self.inner.courier {
            courier.reload(&self.inner.home)?;
        }
        // What the night does is read anew before each anyway.
        self.inner.scrub.set(config.scrub.cycle().unwrap_or_default());
        self.inner.refresh();
        Ok(())
    }

    /// Starts nothing new, and waits for what is running to end, for a while. Who waits is told to come back.
    pub async fn drain(&self) {
        self.inner.drain();
        let watch = Stopwatch::start();
        while !self.inner.hub.is_quiet(Which::Writing) && watch.elapsed() < DRAIN {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends all sessions with a word to each, and everything they have written is kept.
    pub async fn stop(self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        self.inner.hub.close_all("the server is stopping");
        aside(|| drop(self.worker));
        for task in self.tasks {
            task.abort();
            // It was told to end, and has no result.
            let _ = task.await;
        }
        lock(&self.inner.dials).values().for_each(AbortHandle::abort);
        // Whoever came in between.
        self.inner.hub.close_all("the server is stopping");
        let watch = Stopwatch::start();
        while !self.inner.hub.is_quiet(Which::All) && watch.elapsed() < SUPERSEDE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.inner.listener.close("the server is stopping").await;
        self.inner.keep();
        if let Err(error) = self.inner.vault.vault.flush() {
            tracing::error!("the vault could not be flushed: {error}");
        }
        // Sessions that have just ended still note what they came to; after that the vault is free for others.
        while Arc::strong_count(&self.inner) > 1 && watch.elapsed() < SUPERSEDE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Does what waits for the disk, or for a lock of somebody who does, while this thread's other tasks go on elsewhere: were
/// they to wait, too, no packet would be answered meanwhile.
pub(crate) fn aside<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(inner: Arc<Inner>) {
    while let Some(mut pending) = inner.listener.accept().await {
        // When many strangers knock, each must first show that its address is its own.
        if inner.knocking.available_permits() < KNOCKING_MAX / 2 {
            match pending.challenge() {
                Some(known) => pending = known,
                None => continue,
            }
        }
        let Ok(slot) = Arc::clone(&inner.knocking).try_acquire_owned() else { continue };
        let inner = Arc::clone(&inner);
        // Apart, so that the task of a link that stands for days holds no room for it.
        let arrival = Box::pin(Arc::clone(&inner).establish(pending, slot));
        tokio::spawn(async move {
            if let Some((link, session, _place)) = arrival.await {
                inner.serve(link, session, Purpose::Theirs).await;
            }
        });
    }
}

/// Lets time pass for the scheduler, and looks at what the command line has changed.
async fn poll(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        aside(|| inner.look());
    }
}

impl Inner {
    /// Sees to one who knocks, and lets it in if it is for a session; `slot` is held only until it is known who that is.
    async fn establish(
        self: Arc<Self>,
        pending: Pending,
        slot: OwnedSemaphorePermit,
    ) -> Option<(Link, Session, OwnedSemaphorePermit)> {
        match pending.establish().await {
            Err(error) => tracing::info!("a dial was turned away: {error}"),
            Ok(Accepted::Session(link)) => {
                drop(slot);
                let Ok(place) = Arc::clone(&self.sessions).try_acquire_owned() else {
                    link.close("the server has too many sessions; try again");
                    return None;
                };
                let known = match link.peer().role {
                    // Whoever has this certificate may do anything here.
                    Role::Operator => Some(self.hub.open(link.hangup())),
                    _ => self.hub.let_in(link.hangup(), &link.peer().name),
                };
                match known {
                    Some(session) => return Some((link, session, place)),
                    None => link.close("too many sessions of this client have not said hello"),
                }
            }
            Ok(Accepted::Join(applicant)) => {
                if let Err(error) = self.enrol(applicant).await {
                    tracing::warn!("an enrolment failed: {error}");
                }
            }
        }
        None
    }

    async fn enrol(self: &Arc<Self>, applicant: Applicant) -> Result<(), ServerError> {
        let application = Application::read(applicant).await?;
        let answer = aside(|| enrolment::decide(&application, &self.fleet, &self.authority))?;
        if let Ok((name, ..)) = &answer {
            tracing::info!(client = %name, "joined");
            // What this process writes does not show as a change of the database.
            aside(|| self.refresh());
        }
        Ok(application.answer(answer).await?)
    }

    pub(crate) async fn serve(self: &Arc<Self>, link: Link, session: Session, purpose: Purpose) {
        let client = link.peer().name.clone();
        let is_agent = link.peer().role != Role::Operator;
        let (progress, is_over) = (AtomicU64::new(0), AtomicBool::new(!is_agent));
        let gate = Gate { inner: self, session, path: link.path(), purpose, progress, is_over };
        let outcome = session::serve(link, Arc::clone(&self.vault), &gate).await;
        aside(|| {
            let found = lock(&self.fleet).client(&client);
            if let Ok(Some(client)) = found {
                gate.over(&client, &outcome);
            }
        });
        // Now the client's next session may write: what this one came to is written down.
        self.hub.leave(session);
    }

    fn drain(self: &Arc<Self>) {
        let actions = self.with_dispatch(Dispatch::drain);
        self.act(actions.unwrap_or_default());
    }

    /// True when the server is about to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Clients that may still be served.
    pub(crate) fn is_welcome(&self) -> Result<impl Fn(ClientId) -> bool + use<>, ServerError> {
        let clients = lock(&self.fleet).clients()?;
        let welcome: std::collections::HashSet<ClientId> = clients
            .into_iter()
            .filter(|client| client.state != ClientState::Revoked)
            .map(|client| client.id)
            .collect();
        Ok(move |client| welcome.contains(&client))
    }
}
