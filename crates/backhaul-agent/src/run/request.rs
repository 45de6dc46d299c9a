//! What a run is asked to do, and how it gets to the server.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use backhaul_archive::backup::BackupProgress;
use backhaul_archive::backup::excludes::Excludes;
use backhaul_archive::backup::stream::Stream;
use backhaul_net::Link;
use backhaul_proto::wire;

use crate::error::AgentError;
use crate::home::{AgentHome, Config};
use crate::hooks::Hooks;
use crate::introduce;
use crate::remote::{Adopting, Limits, Opening, Remote, Waiting};
use crate::sources::Sources;
use crate::stills::Still;
use crate::ways::Ways;

/// What to save; empty paths mean those of the config.
#[derive(Default, Clone)]
pub struct RunRequest {
    /// Absolute paths.
    pub paths: Vec<PathBuf>,
    /// What to leave out.
    pub exclude: Excludes,
    /// What is run before and after.
    pub hooks: Hooks,
    /// Saved instead of the paths, which only say what it is; once.
    pub stream: Option<Pour>,
    /// Free labels.
    pub tags: Vec<String>,
    /// Stay on the file systems of the paths.
    pub one_file_system: bool,
    /// Whether files are saved from stills.
    pub still: Still,
    /// Counted up while it runs.
    pub progress: Arc<BackupProgress>,
    /// What made it begin, and how it is carried.
    pub passage: Passage,
}

/// A stream that one run takes.
pub type Pour = Arc<Mutex<Option<Stream<'static>>>>;

impl RunRequest {
    /// What the config says.
    ///
    /// # Errors
    /// Something that it says of what to leave out cannot be read by now.
    pub fn of(config: &Config, passage: Passage) -> Result<Self, AgentError> {
        let Sources { one_file_system, still, .. } = config.backup;
        let exclude = config.backup.excludes().map_err(AgentError::Sources)?;
        let (paths, hooks) = (config.paths.clone(), config.backup.hooks());
        Ok(Self { paths, exclude, hooks, one_file_system, still, passage, ..Self::default() })
    }
}

/// How a run gets to the server.
#[derive(Clone, Default)]
pub struct Passage {
    /// What made it begin.
    pub trigger: wire::Trigger,
    /// From an earlier deferral.
    pub ticket: Vec<u8>,
    /// How the machine stands.
    pub report: Option<wire::Report>,
    /// It does not want to: only a nudge would be heard.
    pub not_now: Option<wire::NotNow>,
    /// Hears of the place in the queue.
    pub waiting: Option<Waiting>,
    /// Takes the policy's terms.
    pub terms: Option<Adopting>,
    /// Bounds of what is sent.
    pub limits: Limits,
    /// Connections under way.
    pub ways: Ways,
    /// The ticket of a wait that has not come to its end.
    pub kept: Arc<Mutex<Vec<u8>>>,
}

impl Passage {
    /// How a session of this run is opened.
    fn opening(&self, home: &AgentHome) -> Opening {
        let hello = introduce::hello(home, self.trigger);
        let hello = wire::Hello {
            intent: wire::Intent::Backup.into(),
            ticket: self.ticket.clone().into(),
            report: self.report.clone().or(hello.report),
            not_now: self.not_now.clone(),
            ..hello
        };
        let (told, kept) = (self.waiting.clone(), Arc::clone(&self.kept));
        let waiting: Waiting = Arc::new(move |queued| {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = queued.ticket.to_vec();
            if let Some(told) = &told {
                told(queued);
            }
        });
        Opening {
            hello,
            waiting: Some(waiting),
            terms: self.terms.clone(),
            limits: self.limits,
            leaving: Some(self.ways.leaving()),
        }
    }

    pub(super) async fn open(&self, link: Link, home: &AgentHome) -> Result<Remote, AgentError> {
        self.ways.note(&link)?;
        let remote = Remote::open(link, self.opening(home)).await?;
        // The wait is over.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // The server has dialled for something else.
        if remote.welcome().errand.is_some() { Err(AgentError::Errand(Box::new(remote))) } else { Ok(remote) }
    }
}
