//! The addresses of the server, looked up beside everything else: a name server that is silent delays nobody.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::lock;
use super::settings::Settings;
use crate::signals::Towards;

/// Between two tries while no name is known.
const AGAIN: Duration = Duration::from_secs(10);
/// So long the start waits for the first answer: most machines have it by then.
const FIRST: Duration = Duration::from_secs(2);

/// Looks until it is dropped.
pub(super) struct Servers {
    known: Arc<Mutex<Vec<SocketAddr>>>,
    again: Arc<Notify>,
    task: AbortHandle,
}

impl Servers {
    /// Begins to look.
    pub async fn find(settings: Arc<Settings>) -> Self {
        let (known, again, first) = (Arc::default(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let task = look(settings, Arc::clone(&known), Arc::clone(&again), Arc::clone(&first));
        let task = tokio::spawn(task).abort_handle();
        let _ = tokio::time::timeout(FIRST, first.notified()).await;
        Self { known, again, task }
    }

    /// They may have changed.
    pub fn look_again(&self) {
        self.again.notify_one();
    }

    /// As they are known now.
    pub fn towards(&self) -> Arc<Towards> {
        let known = Arc::clone(&self.known);
        Arc::new(move || lock(&known).clone())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What was known is kept where nothing is found: without a name server there may still be a network.
async fn look(
    settings: Arc<Settings>,
    known: Arc<Mutex<Vec<SocketAddr>>>,
    again: Arc<Notify>,
    first: Arc<Notify>,
) {
    loop {
        let found = resolve(&settings.config().servers).await;
        let is_found = !found.is_empty();
        if is_found {
            *lock(&known) = found;
        }
        first.notify_one();
        match is_found {
            true => again.notified().await,
            false => drop(tokio::time::timeout(AGAIN, again.notified()).await),
        }
    }
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
