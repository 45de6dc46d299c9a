//! What there is to mount, from sessions that are opened again when they are lost.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backhaul_agent::clock::Stopwatch;
use backhaul_agent::error::AgentError;
use backhaul_agent::remote::{Listed, Remote, Which};
use backhaul_agent::ways::Ways;
use backhaul_archive::mount::{Library, Shot};
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_object::{Object, ObjectId, Reference};
use backhaul_server::home::ServerHome;
use tokio::runtime::Handle;

use crate::failure::Failure;
use crate::output;
use crate::reader::Access;

/// How old a list of snapshots may be.
const FRESH: Duration = Duration::from_secs(3);
/// How long a lost server is looked for while somebody waits for a file, and the pause between two tries.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);
/// A session that nobody has used for so long is closed: while it is open, the server keeps what it may still read.
const IDLE: Duration = Duration::from_secs(30);
/// So long after a search in vain everybody else is told so at once.
const GIVEN_UP: Duration = Duration::from_secs(5);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that is shown.
pub struct Shelves {
    access: Arc<Access>,
    runtime: Handle,
    clients: Clients,
    keepers: Mutex<HashMap<String, Arc<Keeper>>>,
}

/// Whose snapshots are shown.
enum Clients {
    One(String),
    /// Those of this server.
    All(PathBuf),
}

impl Shelves {
    /// Opens a first session, so that what is wrong is said before anything is mounted.
    pub async fn open(home: &Path, client: Option<&str>) -> Result<Self, Failure> {
        let (access, runtime) =
            (Arc::new(Access::find(home, client, &Ways::default()).await?), Handle::current());
        let clients = match client {
            None if access.is_operator => Clients::All(home.to_path_buf()),
            None => Clients::One(String::new()),
            Some(client) => Clients::One(client.to_owned()),
        };
        let keepers = Mutex::default();
        let Clients::One(asked) = clients else { return Ok(Self { access, runtime, clients, keepers }) };
        let remote = access.browse(&asked).await?;
        let name = remote.welcome().client.clone();
        let keeper = Keeper::new(&access, runtime.clone(), asked, Some(remote));
        let keepers = Mutex::new(HashMap::from([(name.clone(), Arc::new(keeper))]));
        Ok(Self { access, runtime, clients: Clients::One(name), keepers })
    }

    fn keeper(&self, client: &str) -> Arc<Keeper> {
        let mut keepers = lock(&self.keepers);
        let make = || Arc::new(Keeper::new(&self.access, self.runtime.clone(), client.to_owned(), None));
        Arc::clone(keepers.entry(client.to_owned()).or_insert_with(make))
    }

    /// Closes what nobody uses, time and again, until it is dropped.
    pub async fn rest(&self) {
        loop {
            tokio::time::sleep(IDLE / 3).await;
            let keepers: Vec<_> = lock(&self.keepers).values().cloned().collect();
            for keeper in keepers {
                if let Some(remote) = keeper.idle() {
                    tracing::info!("nobody looks: the session is closed until somebody does");
                    remote.close().await;
                }
            }
        }
    }

    /// Says goodbye, unless somebody is still being served: then it ends with the process.
    pub async fn close(self: Arc<Self>) {
        let Some(whole) = Arc::into_inner(self) else { return };
        for (_, keeper) in whole.keepers.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let remote = lock(&keeper.slot).remote.take().and_then(Arc::into_inner);
            if let Some(remote) = remote {
                remote.close().await;
            }
        }
        if let Some(access) = Arc::into_inner(whole.access) {
            access.close().await;
        }
    }
}

impl Library for Shelves {
    fn clients(&self) -> Result<Vec<String>, TransferError> {
        match &self.clients {
            Clients::One(client) => Ok(vec![client.clone()]),
            Clients::All(home) => {
                let known = ServerHome::at(home).fleet().and_then(|fleet| fleet.clients());
                let clients = known.map_err(|error| TransferError::Refused(error.to_string()))?;
                Ok(clients.into_iter().map(|client| client.name).collect())
            }
        }
    }

    fn snapshots(&self, client: &str) -> Result<Vec<Shot>, TransferError> {
        self.keeper(client).snapshots()
    }

    fn source(&self, client: &str) -> Arc<dyn ObjectSource> {
        self.keeper(client)
    }
}

/// One client's session.
struct Keeper {
    access: Arc<Access>,
    runtime: Handle,
    client: String,
    slot: Mutex<Slot>,
    known: Mutex<Option<(Stopwatch, Vec<Shot>)>>,
}

struct Slot {
    remote: Option<Arc<Remote>>,
    used: Stopwatch,
    given_up: Option<(Stopwatch, TransferError)>,
}

impl Keeper {
    fn new(access: &Arc<Access>, runtime: Handle, client: String, remote: Option<Remote>) -> Self {
        let slot = Slot { remote: remote.map(Arc::new), used: Stopwatch::start(), given_up: None };
        let slot = Mutex::new(slot);
        Self { access: Arc::clone(access), runtime, client, slot, known: Mutex::default() }
    }

    /// The open session, or a new one. Blocks, while others wait for the same.
    fn remote(&self) -> Result<Arc<Remote>, TransferError> {
        let mut slot = lock(&self.slot);
        slot.used = Stopwatch::start();
        if let Some(remote) = &slot.remote {
            return Ok(Arc::clone(remote));
        }
        if let Some((since, why)) = slot.given_up.as_ref().filter(|(since, _)| since.elapsed() < GIVEN_UP) {
            tracing::debug!("given up {} s ago: {why}", since.elapsed().as_secs());
            return Err(why.clone());
        }
        let watch = Stopwatch::start();
        loop {
            let why = match self.runtime.block_on(self.access.browse(&self.client)) {
                Ok(remote) => {
                    let remote = Arc::new(remote);
                    let used = Stopwatch::start();
                    *slot = Slot { remote: Some(Arc::clone(&remote)), used, given_up: None };
                    return Ok(remote);
                }
                Err(failure) => TransferError::Lost(failure.to_string()),
            };
            if watch.elapsed() >= PATIENCE {
                slot.given_up = Some((Stopwatch::start(), why.clone()));
                return Err(why);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Does something with the session, once more with a new one if it was lost.
    fn with<T>(&self, work: impl Fn(&Remote) -> Result<T, TransferError>) -> Result<T, TransferError> {
        let remote = self.remote()?;
        match work(&remote) {
            Err(why @ (TransferError::Lost(_) | TransferError::Refused(_))) => {
                self.give_up(&remote, &why);
                work(&*self.remote()?)
            }
            other => other,
        }
    }

    fn give_up(&self, lost: &Arc<Remote>, why: &TransferError) {
        let mut slot = lock(&self.slot);
        if slot.remote.as_ref().is_some_and(|remote| Arc::ptr_eq(remote, lost)) {
            tracing::warn!("{why}; looking for the server");
            slot.remote = None;
        }
    }

    /// The session, if nobody has used it for a while.
    fn idle(&self) -> Option<Remote> {
        // Whoever holds it is looking for the server.
        let mut slot = self.slot.try_lock().ok()?;
        if slot.used.elapsed() < IDLE {
            return None;
        }
        match Arc::try_unwrap(slot.remote.take()?) {
            Ok(remote) => Some(remote),
            Err(in_use) => {
                slot.remote = Some(in_use);
                None
            }
        }
    }

    /// As they were a moment ago; of a server that is away, as they were last.
    fn snapshots(&self) -> Result<Vec<Shot>, TransferError> {
        let mut known = lock(&self.known);
        if let Some((_, shots)) = known.as_ref().filter(|(since, _)| since.elapsed() < FRESH) {
            return Ok(shots.clone());
        }
        let list = |remote: &Remote| {
            remote.snapshots(Which::Listed).map_err(|error| match error {
                AgentError::Transfer(error) => error,
                other => TransferError::Refused(other.to_string()),
            })
        };
        let shots = match (self.with(list), known.take()) {
            (Ok(listed), _) => listed.iter().map(shot).collect(),
            (Err(why), Some((_, shots))) => {
                tracing::warn!("new snapshots are not seen: {why}");
                shots
            }
            (Err(why), None) => return Err(why),
        };
        *known = Some((Stopwatch::start(), Vec::clone(&shots)));
        Ok(shots)
    }
}

impl ObjectSource for Keeper {
    fn read(&self, ids: &[ObjectId]) -> Result<Vec<Object>, TransferError> {
        self.with(|remote| remote.read(ids))
    }

    fn read_parts(&self, wanted: &[Reference]) -> Result<Vec<Object>, TransferError> {
        self.with(|remote| remote.read_parts(wanted))
    }
}

/// Under the local time at which the server had it: what SNAPSHOT means elsewhere, too.
fn shot(listed: &Listed) -> Shot {
    let time = listed.server_time;
    let (id, root, label) = (listed.id, listed.manifest.root, output::stamp(time));
    Shot { id, root, label, time, origin: listed.manifest.origin() }
}
