//! The scrub: the server reads every byte of its vault once in a cycle, slowly, mends what it can, and says so when it
//! cannot.

use std::sync::Arc;
use std::time::Duration;

use backhaul_schedule::policy::units;
use backhaul_store::aside;
use backhaul_store::check::{Go, Mending, Report, Round};
use backhaul_store::scrub::{self, Turn};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::alerts::{Alert, AlertKind};
use crate::check;
use crate::chores::{Chore, queue};
use crate::clock;
use crate::daemon::{Inner, aside, lock};
use crate::damage::{LongList, LostPaths, lost_paths};
use crate::error::ServerError;
use crate::export;
use crate::export::look::{Newest, look};

/// Bytes a second while a pack is read: others come first.
const RATE: u64 = 24 << 20;
/// Longest wait until it is looked again: packs come and go.
const LOOK: u64 = 60;
/// Manifests and the like are looked at so often, in seconds.
const PAPERS_EVERY: u64 = 86_400;

/// `[scrub]` of the server's config.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// In how long everything is read once, as 30d; `off` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle: Option<String>,
    /// How long the files that a repair has replaced are kept, as 30d; `off` for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
}

impl Config {
    /// True when nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The cycle in seconds; none when there is to be no scrub.
    ///
    /// # Errors
    /// Not a duration.
    pub fn cycle(&self) -> Result<Option<u64>, String> {
        seconds("cycle", self.cycle.as_deref(), scrub::CYCLE)
    }

    /// For how many seconds replaced files are kept; none for ever.
    ///
    /// # Errors
    /// Not a duration.
    pub fn quarantine(&self) -> Result<Option<u64>, String> {
        seconds("quarantine", self.quarantine.as_deref(), aside::KEPT)
    }
}

fn seconds(key: &str, said: Option<&str>, usual: u64) -> Result<Option<u64>, String> {
    match said {
        None => Ok(Some(usual)),
        Some("off") => Ok(None),
        Some(text) => match units::duration(text).and_then(|seconds| u64::try_from(seconds).ok()) {
            Some(seconds) if seconds > 0 => Ok(Some(seconds)),
            _ => Err(format!("scrub.{key} = {text:?}: say 30d, 12h or off")),
        },
    }
}

/// In how long everything is to be read once, as the config says now.
pub(crate) struct Setting {
    cycle: watch::Sender<Option<u64>>,
}

impl Setting {
    pub(crate) fn new(cycle: Option<u64>) -> Self {
        Self { cycle: watch::Sender::new(cycle) }
    }

    /// Another cycle, or none; in force at once.
    pub(crate) fn set(&self, cycle: Option<u64>) {
        self.cycle.send_replace(cycle);
    }
}

/// Scrubs until it is aborted.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut papers_at = 0;
    let mut works = None;
    let mut setting = inner.scrub.cycle.subscribe();
    loop {
        let Some(cycle) = *setting.borrow_and_update() else {
            // Its sender lives as long as this task's share of the server.
            let _ = setting.changed().await;
            continue;
        };
        let now = clock::now();
        let turn = match inner.vault.vault.scrub_turn(cycle, now) {
            Ok(turn) => turn,
            Err(error) => {
                inner.note_scrub(&mut works, Some(error.to_string()));
                None
            }
        };
        let (wait, turn) = match turn {
            Some(turn) if turn.at <= now => (0, Some(turn)),
            Some(turn) => ((turn.at - now).min(LOOK), None),
            None => (LOOK, None),
        };
        if let Some(turn) = turn {
            let mut round = Round::Pack;
            if now.abs_diff(papers_at) >= PAPERS_EVERY.min(cycle) {
                (papers_at, round) = (now, Round::PackAndPapers);
            }
            let here = Arc::clone(&inner);
            // It ends by itself when the server does: at most one pack is under way.
            let done = tokio::task::spawn_blocking(move || one(&here, turn, round, now)).await;
            let done = done.map_err(|error| error.to_string());
            match done.and_then(|done| done.map_err(|error| error.to_string())) {
                Ok(()) => {
                    inner.note_scrub(&mut works, None);
                    continue;
                }
                Err(error) => inner.note_scrub(&mut works, Some(error)),
            }
        }
        let _ = tokio::time::timeout(Duration::from_secs(wait.max(1)), setting.changed()).await;
    }
}

impl Inner {
    /// Writes down whether the scrub works, when that changes: `works` is what was written down.
    fn note_scrub(&self, works: &mut Option<Result<(), String>>, failure: Option<String>) {
        if let Some(why) = &failure {
            tracing::error!("scrub: {why}");
        }
        let state = failure.map_or(Ok(()), Err);
        if self.is_stopping() || works.as_ref() == Some(&state) {
            return;
        }
        let now = clock::now();
        self.complain(aside(|| match &state {
            Ok(()) => lock(&self.fleet).upkeep_works("scrub", now).map(drop),
            Err(why) => lock(&self.fleet).upkeep_failed("scrub", why, now),
        }));
        self.courier.iter().for_each(|courier| courier.wake());
        *works = Some(state);
    }
}

fn one(inner: &Arc<Inner>, turn: Turn, round: Round, now: u64) -> Result<(), ServerError> {
    let pace = |bytes: u64| {
        std::thread::sleep(Duration::from_micros(bytes * 1_000_000 / RATE));
        if inner.is_stopping() { Go::Stop } else { Go::On }
    };
    let mut report = inner.vault.vault.scrub(&turn.pack, round, now, &pace)?;
    if round == Round::PackAndPapers {
        let (mut damage, newest) = look(&inner.vault.vault, Mending::Mend, now)?;
        report.damage.append(&mut damage);
        if newest == Newest::Damaged {
            queue(&mut lock(&inner.fleet), &Chore::Export(export::Request {}))?;
        }
    }
    tell(inner, &report)?;
    // Only who has seen the manifests, too, knows that nothing is lost any more.
    if round == Round::PackAndPapers && report.is_sound() && inner.vault.vault.damaged_packs()? == 0 {
        inner.clear(AlertKind::Damage, None, None);
    }
    Ok(())
}

/// What was mended is logged, what could not be is an alert.
fn tell(inner: &Arc<Inner>, report: &Report) -> Result<(), ServerError> {
    for damage in &report.damage {
        match &damage.mended {
            Some(how) => tracing::warn!("{}: {}: {how}", damage.what, damage.why),
            None => tracing::error!("{}: {}", damage.what, damage.why),
        }
    }
    if report.is_sound() {
        return Ok(());
    }
    let lost = lost_paths(&inner.vault, report, LongList::None, &|| {
        if inner.is_stopping() { Go::Stop } else { Go::On }
    })?;
    let kind = AlertKind::Damage;
    inner.raise(&Alert {
        kind,
        client: None,
        group: None,
        text: text(report, &lost),
        obstacle: String::new(),
    });
    Ok(())
}

fn text(report: &Report, lost: &LostPaths) -> String {
    let clients: Vec<&str> = lost.clients.iter().map(String::as_str).collect();
    let whose = match clients.len() {
        0 => String::new(),
        _ => format!(" (of {})", clients.join(", ")),
    };
    let next = match check::needs_rebuild(report) {
        true => "stop the server and run `backhaul check --repair`",
        false => "`backhaul check` names it; what a client still has of it comes back with its next backup",
    };
    format!("the scrub found damage that it could not repair: {}{whose}; {next}", check::words(report, lost))
}
