//! The running server: accepts, dials, polls the fleet, stops.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backhaul_net::authority::Authority;
use backhaul_net::endpoint::{Accepted, Listener, Pending, dial_agent};
use backhaul_net::enrol::{Applicant, Application};
use backhaul_net::link::Hangup;
use backhaul_net::{Identity, Link, NetError, PeerIdentity, Role};
use backhaul_object::ObjectId;
use backhaul_object::ids::ClientId;
use backhaul_proto::{end, wire};
use backhaul_schedule::Action;
use backhaul_schedule::fleet::Outcome as Schedule;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::clock;
use crate::dispatch::Dispatch;
use crate::enrolment;
use crate::error::ServerError;
use crate::fleet::{Client, ClientState, Fleet};
use crate::home::ServerHome;
use crate::session::{self, Admission, Ending, OpenVault, Outcome};

/// How often the fleet database is looked at: what the command line changes takes effect within this.
pub const POLL: Duration = Duration::from_secs(1);
/// Sessions at once.
const SESSIONS_MAX: usize = 1_024;
/// Dials of which it is not known yet who they are.
const KNOCKING_MAX: usize = 256;
/// How long an older session of a client may take to end.
const SUPERSEDE: Duration = Duration::from_secs(20);

/// What a started server is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Everything: it dials, decides who may push, and carries out what the command line asks for.
    Full,
    /// One command of its own machine: it answers, and starts nothing.
    OneCommand,
}

/// The snapshot that a run made, and how many files of it could not be read.
type Snapshot = (ObjectId, u64);

/// Who began a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Push,
    Pull,
}

/// A backup session that is running.
struct Active {
    serial: u64,
    hangup: Hangup,
    ended: Arc<Notify>,
}

struct Inner {
    fleet: Mutex<Fleet>,
    /// None when the server is there for one command.
    dispatch: Option<Mutex<Dispatch>>,
    vault: Arc<OpenVault>,
    authority: Authority,
    dialler: Identity,
    listener: Listener,
    /// All open sessions, to end those of revoked clients.
    open: Mutex<HashMap<u64, (ClientId, Hangup)>>,
    /// The one backup session of each client.
    active: Mutex<HashMap<ClientId, Active>>,
    serial: std::sync::atomic::AtomicU64,
    knocking: Arc<Semaphore>,
    sessions: Semaphore,
}

/// A running server.
pub struct Server {
    inner: Arc<Inner>,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
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
        let listen = listen.unwrap_or(&config.listen);
        let address: SocketAddr = listen.parse().map_err(|_| ServerError::File {
            path: home.dir().join("config.toml"),
            why: format!("listen = {listen:?} is no ADDRESS:PORT"),
        })?;
        let listener = Listener::server(address, &home.identity(Role::Server)?)?;
        let address = listener.address()?;
        let fleet = home.fleet()?;
        fleet.fail_orphans(clock::now())?;
        let dispatch = (duty == Duty::Full).then(Mutex::default);
        let inner = Arc::new(Inner {
            fleet: Mutex::new(fleet),
            dispatch,
            vault,
            authority: home.authority()?,
            dialler: home.identity(Role::ServerDialler)?,
            listener,
            open: Mutex::default(),
            active: Mutex::default(),
            serial: std::sync::atomic::AtomicU64::new(1),
            knocking: Arc::new(Semaphore::new(KNOCKING_MAX)),
            sessions: Semaphore::new(SESSIONS_MAX),
        });
        let tasks = vec![tokio::spawn(accept(Arc::clone(&inner))), tokio::spawn(poll(Arc::clone(&inner)))];
        Ok(Self { inner, address, tasks, _lock: lock })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all sessions with a word to each, and everything they have written is kept.
    pub async fn stop(self) {
        for task in &self.tasks {
            task.abort();
        }
        for (_, hangup) in lock(&self.inner.open).values() {
            hangup.close("the server is stopping");
        }
        let deadline = clock::Stopwatch::start();
        while !lock(&self.inner.open).is_empty() && deadline.elapsed() < SUPERSEDE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.inner.listener.close("the server is stopping").await;
        if let Err(error) = self.inner.vault.vault.flush() {
            tracing::error!("the vault could not be flushed: {error}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
        tokio::spawn(async move { inner.establish(pending, slot).await });
    }
}

/// Looks at what the command line has changed.
async fn poll(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(POLL);
    loop {
        ticks.tick().await;
        if let Err(error) = inner.end_revoked() {
            tracing::error!("fleet: {error}");
        }
        let Some(dispatch) = &inner.dispatch else { continue };
        let refreshed = lock(dispatch).refresh(&lock(&inner.fleet), &|client| inner.newest(client));
        match refreshed {
            Ok(actions) => inner.act(actions),
            Err(error) => tracing::error!("fleet: {error}"),
        }
    }
}

/// A run that the server starts: dials the agent, then it is a session like any other.
async fn pull(inner: Arc<Inner>, client: ClientId) {
    let begun = lock(&inner.fleet).begin_run(client, clock::now());
    let (run, client) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            tracing::error!("fleet: {error}");
            return inner.ended(client, Schedule::Failed);
        }
    };
    let (outcome, ended) = match (&client.state, &client.address) {
        (ClientState::Active, Some(address)) => inner.pull_twice(address, &client).await,
        (ClientState::Active, None) => {
            let why = format!(
                "client {:?} has no address to dial; `client edit --address HOST:PORT` gives one",
                client.name
            );
            (Err(why), Schedule::Failed)
        }
        (state, _) => (Err(format!("client {:?} is {}", client.name, state.as_str())), Schedule::Failed),
    };
    let outcome = outcome.as_ref().map(|done| *done).map_err(String::as_str);
    if let Err(error) = lock(&inner.fleet).end_run(run, outcome, clock::now()) {
        tracing::error!("fleet: {error}");
    }
    inner.ended(client.id, ended);
}

impl Inner {
    /// Lets one in who knocks; `slot` is held only until it is known who that is.
    async fn establish(self: &Arc<Self>, pending: Pending, slot: OwnedSemaphorePermit) {
        match pending.establish().await {
            Err(error) => tracing::info!("a dial was turned away: {error}"),
            Ok(Accepted::Session(link)) => {
                drop(slot);
                let Ok(_session) = self.sessions.try_acquire() else {
                    return link.close("the server has too many sessions; try again");
                };
                self.serve(link, Direction::Push).await;
            }
            Ok(Accepted::Join(applicant)) => {
                if let Err(error) = self.enrol(applicant).await {
                    tracing::warn!("an enrolment failed: {error}");
                }
            }
        }
    }

    async fn enrol(&self, applicant: Applicant) -> Result<(), ServerError> {
        let application = Application::read(applicant).await?;
        let answer =
            tokio::task::block_in_place(|| enrolment::decide(&application, &self.fleet, &self.authority))?;
        if let Ok((name, ..)) = &answer {
            tracing::info!(client = %name, "joined");
        }
        Ok(application.answer(answer).await?)
    }

    async fn serve(self: &Arc<Self>, link: Link, direction: Direction) -> Outcome {
        let serial = self.serial.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let gate = Gate { inner: self, serial, hangup: link.hangup(), direction, started: Mutex::default() };
        let outcome = session::serve(link, Arc::clone(&self.vault), &gate).await;
        lock(&self.open).remove(&serial);
        let mut active = lock(&self.active);
        if let Some(client) = active.iter().find(|(_, a)| a.serial == serial).map(|(client, _)| *client)
            && let Some(ended) = active.remove(&client)
        {
            ended.ended.notify_waiters();
        }
        drop(active);
        if let Some((id, client)) = lock(&gate.started).take() {
            let ended = match (&outcome.committed, &outcome.ending) {
                (Some(committed), _) => Ok(*committed),
                (None, ending) => {
                    Err(ending.as_ref().map_or("it ended without a snapshot", |e| e.text.as_str()))
                }
            };
            if let Err(error) = lock(&self.fleet).end_run(id, ended, clock::now()) {
                tracing::error!("fleet: {error}");
            }
            let succeeded = Schedule::Succeeded(clock::now() as i64);
            self.ended(client, if ended.is_ok() { succeeded } else { Schedule::Failed });
        }
        outcome
    }

    /// Carries out what the scheduler decided.
    fn act(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            if let Action::Dial(client) = action {
                tokio::spawn(pull(Arc::clone(self), ClientId(client)));
            }
        }
    }

    fn ended(self: &Arc<Self>, client: ClientId, outcome: Schedule) {
        if let Some(dispatch) = &self.dispatch {
            let actions = lock(dispatch).ended(client, outcome);
            self.act(actions);
        }
    }

    /// When a client's newest snapshot was made.
    fn newest(&self, client: ClientId) -> Option<u64> {
        let rows = self.vault.vault.snapshots(Some(client)).unwrap_or_default();
        rows.iter().map(|row| row.server_time).max()
    }

    async fn pull_twice(
        self: &Arc<Self>,
        address: &str,
        client: &Client,
    ) -> (Result<Snapshot, String>, Schedule) {
        let mut last = self.pull_from(address, client).await;
        if let Ok(Err(Ending { code: end::STALE, .. })) = &last {
            // The agent has dropped its stale state by now, and reads everything again.
            last = self.pull_from(address, client).await;
        }
        match last {
            Err(error) => (Err(error.to_string()), Schedule::NotReached),
            Ok(Err(ending)) => (Err(ending.text), Schedule::Failed),
            Ok(Ok(snapshot)) => (Ok(snapshot), Schedule::Succeeded(clock::now() as i64)),
        }
    }

    async fn pull_from(
        self: &Arc<Self>,
        address: &str,
        client: &Client,
    ) -> Result<Result<Snapshot, Ending>, NetError> {
        let link = dial_agent(address, &self.dialler, &client.name).await?;
        let Outcome { committed, ending } = self.serve(link, Direction::Pull).await;
        let silent = || Ending::new(end::PROTOCOL, "the agent ended the session without a snapshot");
        Ok(committed.ok_or_else(|| ending.unwrap_or_else(silent)))
    }

    fn end_revoked(&self) -> Result<(), ServerError> {
        let open: Vec<(ClientId, Hangup)> = lock(&self.open).values().cloned().collect();
        if open.is_empty() {
            return Ok(());
        }
        let clients = lock(&self.fleet).clients()?;
        for (id, hangup) in open {
            let welcome =
                clients.iter().any(|client| client.id == id && client.state != ClientState::Revoked);
            if !welcome {
                hangup.dismiss("this client was revoked on the server");
            }
        }
        Ok(())
    }

    /// Takes the client's one place for a backup session; an older session is ended, and waited for until its
    /// writing has stopped.
    async fn supersede(&self, client: ClientId, serial: u64, hangup: &Hangup) -> Result<(), Ending> {
        let take = async {
            loop {
                let ended = {
                    let mut active = lock(&self.active);
                    match active.get(&client) {
                        Some(older) => {
                            older.hangup.dismiss("a newer session of this client has begun");
                            Arc::clone(&older.ended)
                        }
                        None => {
                            let ended = Arc::new(Notify::new());
                            active.insert(client, Active { serial, hangup: hangup.clone(), ended });
                            return;
                        }
                    }
                };
                let _ = tokio::time::timeout(Duration::from_millis(100), ended.notified()).await;
            }
        };
        let busy = |_| Ending::new(end::BUSY, "an older session of this client is still ending; try again");
        tokio::time::timeout(SUPERSEDE, take).await.map_err(busy)
    }
}

/// Admits one session.
struct Gate<'s> {
    inner: &'s Arc<Inner>,
    serial: u64,
    hangup: Hangup,
    direction: Direction,
    /// The run that a push has begun.
    started: Mutex<Option<(i64, ClientId)>>,
}

impl Admission for Gate<'_> {
    async fn admit(&self, peer: &PeerIdentity, hello: &wire::Hello) -> Result<Client, Ending> {
        let operator = peer.role == Role::Operator;
        let name = if operator { &hello.client } else { &peer.name };
        let found = lock(&self.inner.fleet).client(name).map_err(Ending::from)?;
        let client = session::identify(peer, hello, found)?;
        if !operator {
            lock(&self.inner.open).insert(self.serial, (client.id, self.hangup.clone()));
            lock(&self.inner.fleet).seen(client.id, clock::now()).map_err(Ending::from)?;
        }
        if hello.intent() == wire::Intent::Backup {
            self.inner.supersede(client.id, self.serial, &self.hangup).await?;
            if self.direction == Direction::Push {
                self.begin_push(&client)?;
            }
        }
        Ok(client)
    }

    fn due_in(&self, client: &Client) -> u64 {
        let Some(dispatch) = &self.inner.dispatch else { return 0 };
        let (wait, actions) = lock(dispatch).due_in(client, &|id| self.inner.newest(id));
        self.inner.act(actions);
        wait
    }
}

impl Gate<'_> {
    /// The scheduler has the last word on pushes, too.
    fn begin_push(&self, client: &Client) -> Result<(), Ending> {
        if let Some(dispatch) = &self.inner.dispatch {
            let (answer, actions) = lock(dispatch).ask(client, &|id| self.inner.newest(id));
            self.inner.act(actions);
            if let Err(after) = answer {
                let text = format!("the server is busy with other backups; come back in {after} s");
                return Err(Ending::new(end::BUSY, text));
            }
        }
        let run = lock(&self.inner.fleet).start_run(client.id, clock::now()).map_err(Ending::from)?;
        *lock(&self.started) = Some((run, client.id));
        Ok(())
    }
}
