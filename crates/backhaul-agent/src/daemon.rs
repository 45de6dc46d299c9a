//! Waits to be dialled by the server, comes to it when it is due, and backs up either way.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backhaul_net::Identity;
use backhaul_net::endpoint::{Accepted, Listener, Pending};
use backhaul_net::link::Hangup;
use backhaul_object::source::TransferError;
use backhaul_proto::wire::Intent;

use crate::error::AgentError;
use crate::home::AgentHome;
use crate::remote::Remote;
use crate::run::{self, RunReport, RunRequest};

/// Between two check-ins, in seconds: at least, and at most (the safety net when a message was lost).
const SHORTEST: u64 = 60;
const LONGEST: u64 = 4 * 3_600;
/// Longest pause after failures, in seconds: a laptop that comes home is backed up within so long.
const BACKOFF_MAX: u64 = 300;

/// A moment between half of and all of a pause that doubles from 10 s with every failure: many clients that lost
/// one server do not come back at once.
fn backoff(failures: u32) -> u64 {
    let pause = (10u64 << failures.min(10)).min(BACKOFF_MAX);
    pause / 2 + RandomState::new().build_hasher().finish() % (pause / 2 + 1)
}

/// What becomes of the dials: told to whoever runs the daemon.
pub type Told = dyn Fn(&Result<RunReport, AgentError>) + Send + Sync;

/// A listening agent.
pub struct AgentDaemon {
    home: AgentHome,
    listener: Listener,
    identity: Identity,
    /// The session that is running: a new dial of the server means that it has given this one up.
    current: Mutex<Option<Hangup>>,
    turn: tokio::sync::Mutex<()>,
}

impl AgentDaemon {
    /// Starts to listen.
    ///
    /// # Errors
    /// Not joined, or the address is taken.
    pub fn start(home: &AgentHome, listen: SocketAddr) -> Result<Self, AgentError> {
        home.config()?;
        let listener = Listener::agent(listen, &home.listener()?)?;
        let (current, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { home: home.clone(), listener, identity: home.listener()?, current, turn })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> Result<SocketAddr, AgentError> {
        Ok(self.listener.address()?)
    }

    /// Serves dials until the future is dropped.
    pub async fn run(self: &Arc<Self>, told: Arc<Told>) {
        while let Some(pending) = self.listener.accept().await {
            let (daemon, told) = (Arc::clone(self), Arc::clone(&told));
            tokio::spawn(async move {
                // A stranger's dial is no run.
                if let Some(outcome) = daemon.on_dial(pending).await {
                    told(&outcome);
                }
            });
        }
    }

    /// Comes to the server by itself when a backup is due, until the future is dropped. The server says when
    /// that is; a server that is not reached is tried again, ever less often, and at once after a success.
    pub async fn check_in(self: &Arc<Self>, told: Arc<Told>) {
        let mut failures = 0;
        loop {
            let pause = match self.come(&told).await {
                Ok(due_in) => {
                    failures = 0;
                    due_in.clamp(SHORTEST, LONGEST)
                }
                Err(error) => {
                    tracing::info!("no check-in: {error}");
                    failures += 1;
                    backoff(failures)
                }
            };
            tokio::time::sleep(Duration::from_secs(pause)).await;
        }
    }

    /// Asks when the next backup is due, and makes it if that is now. Returns when to come again.
    async fn come(self: &Arc<Self>, told: &Arc<Told>) -> Result<u64, AgentError> {
        let servers = self.home.config()?.servers;
        let link = run::dial(&servers, &self.home.agent()?).await?;
        let remote = Remote::open(link, Intent::Browse, "").await?;
        let due_in = remote.welcome().due_in;
        remote.close().await;
        if due_in > 0 || self.home.config()?.paths.is_empty() {
            return Ok(due_in.max(SHORTEST));
        }
        let _turn = self.turn.lock().await;
        let outcome = run::push(&self.home, &servers, &RunRequest::default()).await;
        told(&outcome);
        outcome.map(|_| SHORTEST)
    }

    async fn on_dial(&self, pending: Pending) -> Option<Result<RunReport, AgentError>> {
        let link = match pending.establish().await {
            Ok(Accepted::Session(link)) => link,
            Ok(Accepted::Join(_)) => return None,
            Err(error) => {
                tracing::info!("a dial was turned away: {error}");
                return None;
            }
        };
        let older = self.current.lock().unwrap_or_else(PoisonError::into_inner).replace(link.hangup());
        if let Some(older) = older {
            older.close("the server has dialled again");
        }
        let _turn = self.turn.lock().await;
        let servers = match self.home.config() {
            Ok(config) => config.servers,
            Err(error) => return Some(Err(error)),
        };
        let outcome = run::run(&self.home, link, &self.identity, &servers, &RunRequest::default()).await;
        if let Err(AgentError::Transfer(TransferError::Stale)) = &outcome
            && let Err(error) = backhaul_archive::backup::state::discard(&self.home.state())
        {
            tracing::error!("local state: {error}");
        }
        Some(outcome)
    }

    /// Tells peers goodbye.
    pub async fn stop(&self) {
        self.listener.close("the agent is stopping").await;
    }
}
