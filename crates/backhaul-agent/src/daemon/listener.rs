//! Waits to be dialled by the server: only by that, only from where it may, and not too often.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use backhaul_net::endpoint::{Accepted, Listener, Pending};
use backhaul_net::{Identity, Link};

use super::settings::Settings;
use crate::clock;
use crate::error::AgentError;
use crate::home::AgentHome;

/// Dials of the server that are answered in a minute: more is an attack, or a server that has gone mad.
const DIALS: usize = 10;
const MINUTE_MS: u64 = 60_000;

/// The listener of an agent.
pub(super) struct Ear {
    listener: Listener,
    pub identity: Identity,
    /// When the last dials were answered.
    answered: Mutex<VecDeque<u64>>,
}

impl Ear {
    pub fn open(home: &AgentHome, listen: SocketAddr) -> Result<Self, AgentError> {
        let listener = Listener::agent(listen, &home.listener()?)?;
        Ok(Self { listener, identity: home.listener()?, answered: Mutex::default() })
    }

    pub fn address(&self) -> Result<SocketAddr, AgentError> {
        Ok(self.listener.address()?)
    }

    pub async fn close(&self) {
        self.listener.close("the agent is stopping").await;
    }

    /// The next dial that deserves an answer. Everybody has to show first that its address is its own, so that this
    /// machine can never be made to send anything to another.
    pub async fn next(&self, settings: &Settings) -> Option<Pending> {
        loop {
            let pending = self.listener.accept().await?;
            if !settings.config().allows(pending.remote().ip()) {
                tracing::debug!("a dial from {} is ignored: it is not in allow_from", pending.remote());
                pending.ignore();
                continue;
            }
            let Some(pending) = pending.challenge() else { continue };
            if self.is_too_often() {
                tracing::warn!("more than {DIALS} dials in a minute: one is ignored");
                pending.ignore();
                continue;
            }
            return Some(pending);
        }
    }

    fn is_too_often(&self) -> bool {
        let now = clock::clocks().boot_ms;
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        while answered.front().is_some_and(|at| at + MINUTE_MS < now) {
            answered.pop_front();
        }
        if answered.len() >= DIALS {
            return true;
        }
        answered.push_back(now);
        false
    }
}

/// Who has dialled; none for those who are not the server.
pub(super) async fn establish(pending: Pending) -> Option<Link> {
    match pending.establish().await {
        Ok(Accepted::Session(link)) => Some(link),
        Ok(Accepted::Join(_)) => None,
        Err(error) => {
            tracing::info!("a dial was turned away: {error}");
            None
        }
    }
}
