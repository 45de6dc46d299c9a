//! The running server's worker: does the chores that wait in the database, one after the other, on a thread of its
//! own with a connection of its own; and beside them, on another, the checks, which may take hours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use backhaul_store::StoreError;
use tokio::sync::Notify;

use super::by_night::ByNight;
use super::{Chore, Outcome, Tools, carry_out, failure_kind};
use crate::clock;
use crate::daemon::POLL;
use crate::error::ServerError;
use crate::fleet::{AskedBy, ChoreRow, FailureKind, Fleet, Lane};
use crate::home::ServerHome;
use crate::session::OpenVault;

/// The running threads. Dropped, it ends what is under way and waits for that.
pub struct Worker {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Worker {
    /// Starts to work; `bell` wakes whoever delivers alerts.
    ///
    /// # Errors
    /// No server here, or the database.
    pub fn start(
        home: &ServerHome,
        vault: Arc<OpenVault>,
        bell: Option<Arc<Notify>>,
    ) -> Result<Self, ServerError> {
        let fleet = home.fleet()?;
        fleet.abandon_chores(clock::now())?;
        let stop = Arc::new(AtomicBool::new(false));
        let by_night = ByNight::new(&fleet)?;
        let round = |fleet, lane| {
            let (home, vault, bell) = (home.clone(), Arc::clone(&vault), bell.clone());
            Round { lane, home, vault, fleet, stop: Arc::clone(&stop), bell, ended: None }
        };
        let (mut checks, mut others) = (round(home.fleet()?, Lane::Checks), round(fleet, Lane::Others));
        let threads = vec![
            std::thread::spawn(move || checks.run(|_| {})),
            std::thread::spawn(move || others.run_by_night(by_night)),
        ];
        Ok(Self { stop, threads })
    }
}

/// Does all chores that wait, in this process, when no server runs.
///
/// # Errors
/// Another process has the server's directory or its vault, or they cannot be used. A chore that fails is no error
/// here: it says so itself.
pub fn work_off(home: &ServerHome) -> Result<(), ServerError> {
    let _lock = home.lock()?;
    let vault = Arc::new(OpenVault::new(home.vault()?, &home.vault_key()?));
    let fleet = home.fleet()?;
    fleet.abandon_chores(clock::now())?;
    let mut round = Round {
        lane: Lane::All,
        home: home.clone(),
        vault,
        fleet,
        stop: Arc::default(),
        bell: None,
        ended: None,
    };
    while round.next()? {}
    Ok(())
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.iter().for_each(|thread| thread.thread().unpark());
        for thread in self.threads.drain(..) {
            // A panic in there was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// How a chore ended.
struct Ended {
    id: i64,
    /// Words and document of what it came to, or why it failed.
    outcome: Result<(String, String), (String, FailureKind)>,
}

struct Round {
    lane: Lane,
    home: ServerHome,
    vault: Arc<OpenVault>,
    fleet: Fleet,
    stop: Arc<AtomicBool>,
    bell: Option<Arc<Notify>>,
    /// What is done and could not be written down yet: somebody waits for it.
    ended: Option<Ended>,
}

impl Round {
    /// Does what waits, until the server stops; looks `before` each.
    fn run(&mut self, mut before: impl FnMut(&mut Self)) {
        let mut complained = String::new();
        while !self.stop.load(Ordering::Relaxed) {
            before(self);
            match self.next() {
                Ok(goes_on) => {
                    complained.clear();
                    if goes_on {
                        continue;
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    // Once, not at each try.
                    if error != complained {
                        tracing::error!("chores: {error}; it is tried again");
                        complained = error;
                    }
                    self.fleet.look_again();
                }
            }
            std::thread::park_timeout(POLL);
        }
        if let Some(ended) = self.ended.take() {
            // What cannot be written down now either is said to have been stopped, by the next start.
            let _ = self.write_down(ended);
        }
    }

    /// The same, and asks for what is due by night.
    fn run_by_night(&mut self, mut by_night: ByNight) {
        let mut night: Option<Result<(), String>> = None;
        self.run(|round| {
            let asked = by_night.ask(&round.home, &mut round.fleet).map_err(|error| {
                tracing::error!("what is due by night: {error}");
                error.to_string()
            });
            // Whether it works is written down when that changes.
            if night.as_ref() != Some(&asked) {
                round.note("night", asked.as_ref().err().map(String::as_str));
                night = Some(asked);
            }
        });
    }

    /// Does the next chore; false when there is none.
    fn next(&mut self) -> Result<bool, ServerError> {
        if let Some(ended) = self.ended.take() {
            self.write_down(ended)?;
        }
        // Looking costs nothing while nobody has written.
        if !self.fleet.has_changed()? {
            return Ok(false);
        }
        let Some(row) = self.fleet.begin_chore(self.lane, clock::now())? else { return Ok(false) };
        // There may be more.
        self.fleet.look_again();
        let chore: Option<Chore> = serde_json::from_str(&row.request).ok();
        let done = match &chore {
            Some(chore) => self.work(&row, chore),
            None => Err(ServerError::Usage("this server knows no such chore".to_owned())),
        };
        if chore.is_some_and(|chore| chore.is_upkeep()) {
            match &done {
                Ok(_) => self.note(&row.kind, None),
                // It was ended, and goes on the next time; who asked by hand is told anyway.
                Err(ServerError::Store(StoreError::Interrupted)) => {}
                Err(error) if row.asked_by == AskedBy::Timer => {
                    self.note(&row.kind, Some(&error.to_string()));
                }
                Err(_) => {}
            }
        }
        let outcome = match done {
            Ok(outcome) => {
                tracing::info!("{}: {}", row.kind, outcome.words);
                Ok((outcome.words, outcome.document.to_string()))
            }
            Err(error) => {
                tracing::warn!("{} failed: {error}", row.kind);
                Err((error.to_string(), failure_kind(&error)))
            }
        };
        self.write_down(Ended { id: row.id, outcome })?;
        Ok(true)
    }

    /// Tells who waits that a chore is over.
    fn write_down(&mut self, ended: Ended) -> Result<(), ServerError> {
        let outcome = match &ended.outcome {
            Ok((words, document)) => Ok((words.as_str(), document.as_str())),
            Err((why, kind)) => Err((why.as_str(), *kind)),
        };
        let written = self.fleet.end_chore(ended.id, outcome, clock::now());
        match written {
            Ok(()) => self.bell.iter().for_each(|bell| bell.notify_one()),
            Err(_) => self.ended = Some(ended),
        }
        written
    }

    /// Writes down whether something works that the server asks of itself.
    fn note(&self, what: &str, failure: Option<&str>) {
        let now = clock::now();
        let noted = match failure {
            Some(why) => self.fleet.upkeep_failed(what, why, now),
            None => self.fleet.upkeep_works(what, now).map(drop),
        };
        if let Err(error) = noted {
            tracing::error!("upkeep: {error}");
        }
        self.bell.iter().for_each(|bell| bell.notify_one());
    }

    fn work(&mut self, row: &ChoreRow, chore: &Chore) -> Result<Outcome, ServerError> {
        let told = self.home.fleet()?;
        let mut progress = |words: &str| {
            // Who waits is told the end all the same.
            let _ = told.chore_progress(row.id, words);
        };
        let mut tools = Tools {
            home: &self.home,
            vault: &self.vault,
            fleet: &mut self.fleet,
            now: clock::now(),
            stop: &self.stop,
            progress: &mut progress,
        };
        carry_out(chore, &mut tools)
    }
}
