//! The connections of runs that are under way: moved when the network changes, closed when the daemon ends.

use std::sync::{Arc, Mutex, PoisonError};

use backhaul_net::Link;
use backhaul_net::link::{Hangup, Path};

use crate::error::AgentError;

#[derive(Default)]
struct State {
    open: Vec<(Path, Hangup)>,
    /// Why there are to be no more.
    shut: Option<&'static str>,
}

/// All of them.
#[derive(Clone, Default)]
pub struct Ways(Arc<Mutex<State>>);

impl Ways {
    /// Takes one more.
    ///
    /// # Errors
    /// [`AgentError::Stopping`]: it is closed, as all are.
    pub fn note(&self, link: &Link) -> Result<(), AgentError> {
        self.with(|state| {
            if let Some(why) = state.shut {
                link.close(why);
                return Err(AgentError::Stopping(why));
            }
            state.open.retain(|(path, _)| path.is_open());
            state.open.push((link.path(), link.hangup()));
            Ok(())
        })
    }

    /// Whether there may be another.
    ///
    /// # Errors
    /// [`AgentError::Stopping`]: all have been closed.
    pub fn check(&self) -> Result<(), AgentError> {
        self.with(|state| state.shut).map_or(Ok(()), |why| Err(AgentError::Stopping(why)))
    }

    /// Those that are open.
    pub fn open(&self) -> Vec<Path> {
        self.with(|state| {
            state.open.iter().map(|(path, _)| path).filter(|path| path.is_open()).cloned().collect()
        })
    }

    /// Closes all, and those that come later.
    pub fn shut(&self, why: &'static str) {
        self.with(|state| {
            state.shut = Some(why);
            for (_, hangup) in state.open.drain(..) {
                hangup.close(why);
            }
        });
    }

    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
