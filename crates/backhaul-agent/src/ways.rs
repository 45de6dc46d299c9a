//! The connections of runs that are under way: moved when the network changes, ended when whoever runs them ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backhaul_net::Link;
use backhaul_net::link::{Hangup, Path};
use tokio::sync::watch;

use crate::error::AgentError;

/// How often it is looked whether all have gone.
const LOOK: Duration = Duration::from_millis(10);
/// How long the last packets need to leave.
const LEAVING: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Shared {
    open: Mutex<Vec<(Path, Hangup)>>,
    /// Why there are to be no more.
    leaving: watch::Sender<Option<&'static str>>,
}

/// All of them.
#[derive(Clone, Default)]
pub struct Ways(Arc<Shared>);

/// Hears when a session is to say goodbye.
#[derive(Clone)]
pub struct Leaving(watch::Receiver<Option<&'static str>>);

impl Leaving {
    /// Waits until it is, perhaps for ever; why.
    pub async fn heard(&mut self) -> &'static str {
        match self.0.wait_for(Option::is_some).await.ok().and_then(|why| *why) {
            Some(why) => why,
            // Nobody is left who could say so.
            None => std::future::pending().await,
        }
    }
}

impl Ways {
    /// Takes one more.
    ///
    /// # Errors
    /// [`AgentError::Stopping`]: it is closed, as all are.
    pub fn note(&self, link: &Link) -> Result<(), AgentError> {
        let mut open = self.lock();
        self.check().inspect_err(|why| link.close(&why.to_string()))?;
        open.retain(|(path, _)| path.is_open());
        open.push((link.path(), link.hangup()));
        Ok(())
    }

    /// Whether there may be another.
    ///
    /// # Errors
    /// [`AgentError::Stopping`]: all have been told to end.
    pub fn check(&self) -> Result<(), AgentError> {
        self.0.leaving.borrow().map_or(Ok(()), |why| Err(AgentError::Stopping(why)))
    }

    /// Those that are open.
    pub fn open(&self) -> Vec<Path> {
        self.lock().iter().map(|(path, _)| path).filter(|path| path.is_open()).cloned().collect()
    }

    /// For a session that goes over one of them.
    pub fn leaving(&self) -> Leaving {
        Leaving(self.0.leaving.subscribe())
    }

    /// Lets no more begin, and lets those that are open say goodbye: each gives up what it sends, so that its last word
    /// is not behind all that. Whoever has not done so in time is closed.
    pub async fn leave(&self, why: &'static str, patience: Duration) {
        {
            // Whoever is just being taken is either told, or sees that it is too late.
            let _open = self.lock();
            self.0.leaving.send_replace(Some(why));
        }
        let gone = async {
            while !self.open().is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(patience, gone).await;
        self.lock().drain(..).for_each(|(_, hangup)| hangup.leave(why));
        tokio::time::sleep(LEAVING).await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Path, Hangup)>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
