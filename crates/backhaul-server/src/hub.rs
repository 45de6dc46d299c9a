//! All open sessions: who they are, how to end them, and how to say something to their peers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backhaul_net::link::Hangup;
use backhaul_object::ids::ClientId;
use backhaul_proto::{end, wire};
use backhaul_schedule::fleet::{CloseReason, Deferral, Nudge, Place, Session};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::fleet::PAUSED;
use crate::session::Ending;

/// Sessions of one client at once, and so many more that have not said hello.
const PER_CLIENT: usize = 12;
/// Hellos of one client: so many at once, and then one in so many milliseconds.
const HELLOS: u64 = 60;
const HELLO_EVERY_MS: u64 = 2_000;
/// How long an older backup session of a client may take to end.
pub(crate) const SUPERSEDE: Duration = Duration::from_secs(20);

/// Something to be said to the peer of a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Its run may begin.
    Granted,
    /// It waits.
    Queued(Place),
    /// It is to come back.
    Deferred(Deferral),
    /// It is nudged.
    Nudge(Nudge),
    /// How it stands.
    Verdict(wire::Verdict),
    /// What its policy asks of its agent.
    Terms(wire::Terms),
    /// It is to come for a restore, and show this.
    Errand(Bytes),
}

/// What was said to a session and is not heard yet: the scheduler may be faster than the session. Not a channel,
/// which has room for 32 from the first: a link stands for days, and there are thousands.
#[derive(Default)]
struct Mailbox {
    said: Mutex<VecDeque<Said>>,
    bell: Notify,
}

impl Mailbox {
    fn put(&self, said: Said) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push_back(said);
        self.bell.notify_one();
    }

    fn take(&self) -> Option<Said> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let first = said.pop_front();
        if said.is_empty() {
            *said = VecDeque::new();
        }
        first
    }
}

/// Hears what is said to a session.
pub struct Ear(Arc<Mailbox>);

impl Ear {
    /// Waits for the next. May be given up and taken up again.
    pub async fn hear(&mut self) -> Said {
        loop {
            // The bell remembers one ring, so nothing is missed in between.
            match self.0.take() {
                Some(said) => return said,
                None => self.0.bell.notified().await,
            }
        }
    }
}

struct Live {
    /// Before it has said hello: the name in its certificate.
    stranger: Option<String>,
    client: Option<ClientId>,
    hangup: Hangup,
    said: Arc<Mailbox>,
}

/// The one backup session of a client that is writing.
struct Writing {
    session: Session,
    ended: Arc<Notify>,
}

#[derive(Default)]
struct State {
    next: Session,
    live: HashMap<Session, Live>,
    writing: HashMap<ClientId, Writing>,
    /// For each client, the time at which all of its hellos are forgiven, in ms.
    hellos: HashMap<ClientId, u64>,
}

impl State {
    fn insert(&mut self, hangup: Hangup, stranger: Option<String>) -> Session {
        self.next += 1;
        self.live.insert(self.next, Live { stranger, client: None, hangup, said: Arc::default() });
        self.next
    }
}

/// All open sessions.
#[derive(Default)]
pub struct Hub(Mutex<State>);

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a session in that is not bounded. Its number is larger than all before.
    pub fn open(&self, hangup: Hangup) -> Session {
        self.state().insert(hangup, None)
    }

    /// Takes a session in that a peer has dialled; none while too many of that peer have not said hello.
    pub fn let_in(&self, hangup: Hangup, peer: &str) -> Option<Session> {
        let mut state = self.state();
        let strangers = state.live.values().filter(|live| live.stranger.as_deref() == Some(peer)).count();
        (strangers < PER_CLIENT).then(|| state.insert(hangup, Some(peer.to_owned())))
    }

    /// Says whose a session is.
    ///
    /// # Errors
    /// That client has too many sessions, or says hello too often.
    pub fn name(&self, session: Session, client: ClientId, now_ms: u64) -> Result<(), Ending> {
        let mut state = self.state();
        let busy = |text: &str, after| Err(Ending::busy(text.to_owned(), after));
        let forgiven = state.hellos.entry(client).or_default();
        *forgiven = (*forgiven).max(now_ms) + HELLO_EVERY_MS;
        if *forgiven > now_ms + HELLOS * HELLO_EVERY_MS {
            *forgiven -= HELLO_EVERY_MS;
            return busy("this client says hello too often", 120);
        }
        if state.live.values().filter(|live| live.client == Some(client)).count() >= PER_CLIENT {
            return busy("this client has too many sessions", 60);
        }
        if let Some(live) = state.live.get_mut(&session) {
            (live.client, live.stranger) = (Some(client), None);
        }
        Ok(())
    }

    /// What is said to a session; nothing, if it is not there. There is one listener.
    pub fn listen(&self, session: Session) -> Ear {
        Ear(self.state().live.get(&session).map(|live| Arc::clone(&live.said)).unwrap_or_default())
    }

    /// Says something to a session, if it is still there.
    pub fn say(&self, session: Session, said: Said) {
        if let Some(live) = self.state().live.get(&session) {
            live.said.put(said);
        }
    }

    /// Ends a session.
    pub fn close(&self, session: Session, reason: CloseReason) {
        if let Some(live) = self.state().live.get(&session) {
            match reason {
                CloseReason::Superseded => live.hangup.dismiss("a newer session of this client has begun"),
                CloseReason::Paused { .. } => live.hangup.dismiss(PAUSED),
                CloseReason::Stalled => live.hangup.close("nothing was heard of this run for ten minutes"),
            }
        }
    }

    /// Ends the sessions of clients that are not welcome any more.
    pub fn dismiss(&self, is_welcome: impl Fn(ClientId) -> bool) {
        let state = self.state();
        let unwelcome = |live: &&Live| live.client.is_some_and(|client| !is_welcome(client));
        for live in state.live.values().filter(unwelcome) {
            live.hangup.dismiss("this client was revoked on the server");
        }
    }

    /// Ends all sessions.
    pub fn close_all(&self, reason: &str) {
        self.state().live.values().for_each(|live| live.hangup.close(reason));
    }

    /// True when no session is open, or none that writes.
    pub fn is_quiet(&self, which: Which) -> bool {
        let state = self.state();
        match which {
            Which::All => state.live.is_empty(),
            Which::Writing => state.writing.is_empty(),
        }
    }

    /// True while a client's backup is being written.
    pub fn is_writing(&self, client: ClientId) -> bool {
        self.state().writing.contains_key(&client)
    }

    /// True while a session has its client's one place to write.
    pub fn writes(&self, client: ClientId, session: Session) -> bool {
        self.state().writing.get(&client).is_some_and(|writing| writing.session == session)
    }

    /// Clients with an open session.
    pub fn clients(&self) -> Vec<ClientId> {
        self.state().live.values().filter_map(|live| live.client).collect()
    }

    /// Forgets a session that has ended.
    pub fn leave(&self, session: Session) {
        let mut state = self.state();
        state.live.remove(&session);
        let client = state.writing.iter().find(|(_, writing)| writing.session == session).map(|(id, _)| *id);
        if let Some(ended) = client.and_then(|client| state.writing.remove(&client)) {
            ended.ended.notify_waiters();
        }
    }

    /// Takes the client's one place for a session that writes; an older one is ended, and waited for until its writing
    /// has stopped.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn take_writing(&self, client: ClientId, session: Session) -> Result<(), Ending> {
        let take = async {
            loop {
                let ended = {
                    let mut state = self.state();
                    let Some(older) = state.writing.get(&client) else {
                        let ended = Arc::new(Notify::new());
                        state.writing.insert(client, Writing { session, ended });
                        return;
                    };
                    let ended = Arc::clone(&older.ended);
                    if let Some(live) = state.live.get(&older.session) {
                        live.hangup.dismiss("a newer session of this client has begun");
                    }
                    ended
                };
                let _ = tokio::time::timeout(Duration::from_millis(100), ended.notified()).await;
            }
        };
        let text = "an older session of this client is still ending; try again";
        tokio::time::timeout(SUPERSEDE, take).await.map_err(|_| Ending::new(end::BUSY, text))
    }
}

/// Which sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// Those that back up.
    Writing,
}
