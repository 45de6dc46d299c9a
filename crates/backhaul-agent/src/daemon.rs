//! Waits to be dialled by the server, and backs up when it is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use backhaul_net::Identity;
use backhaul_net::endpoint::{Accepted, Listener, Pending};
use backhaul_net::link::Hangup;
use backhaul_object::source::TransferError;

use crate::error::AgentError;
use crate::home::AgentHome;
use crate::run::{self, RunReport, RunRequest};

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
        let outcome = run::run(&self.home, link, &self.identity, &RunRequest::default()).await;
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
