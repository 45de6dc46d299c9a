//! One backup, from an open connection to a committed snapshot.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use backhaul_archive::backup::joints::Joints;
use backhaul_archive::backup::stream::backup_stream;
use backhaul_archive::backup::{BackupError, BackupRequest, Figures, Follows, Saved, backup, dry_run, state};
use backhaul_net::endpoint::dial_server;
use backhaul_net::transport::Use;
use backhaul_net::{Identity, Link, NetError};
use backhaul_object::ObjectId;
use backhaul_object::entry::Totals;
use backhaul_object::seal::Packer;
use backhaul_object::snapshot::Snapshot;
use backhaul_object::source::TransferError;
use backhaul_proto::wire;

use crate::clock::{self, Stopwatch};
use crate::error::AgentError;
use crate::home::AgentHome;
use crate::hooks;
use crate::remote::{Changes, Remote};
use crate::resume::{Redial, Resuming};
use crate::stills::{Still, Stills, Want};

mod request;

pub use request::{Passage, Pour, RunRequest};

/// What a run came to.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// The snapshot; none in a dry run.
    pub snapshot: Option<ObjectId>,
    /// Its root.
    pub root: Option<ObjectId>,
    /// The client's name.
    pub client: String,
    /// Sums over the tree.
    pub totals: Totals,
    /// What happened on this side.
    pub figures: Figures,
    /// What was saved from stills, in words.
    pub stills: Vec<String>,
    /// What was not as it should be, though nothing is missing.
    pub warnings: Vec<String>,
    /// Bytes that the vault grew by.
    pub bytes_stored: u64,
    /// Objects that the vault grew by.
    pub objects_new: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// In how many seconds the next one is due.
    pub due_in: u64,
}

/// Dials the servers of the config in order.
///
/// # Errors
/// The reason that the last one gave; a server of another authority ends the search.
pub async fn dial(servers: &[String], identity: &Identity) -> Result<Link, NetError> {
    let mut last =
        NetError::Unreachable { address: "the server".to_owned(), why: "no address known".to_owned() };
    for server in servers {
        match dial_server(server, identity, Use::Work).await {
            Ok(link) => return Ok(link),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Dials and backs up; when the server no longer holds what the local state says, once more without it.
///
/// # Errors
/// No snapshot was made; what was sent is kept on the server and not sent again.
pub async fn push(
    home: &AgentHome,
    servers: &[String],
    request: &RunRequest,
) -> Result<RunReport, AgentError> {
    let identity = home.agent()?;
    let link = dial(servers, &identity).await?;
    match run(home, link, &identity, servers, request).await {
        Err(AgentError::Transfer(TransferError::Stale)) => {
            let passage = Passage { trigger: wire::Trigger::Resume, ..request.passage.clone() };
            push_afresh(home, servers, &RunRequest { passage, ..request.clone() }).await
        }
        other => other,
    }
}

/// Drops the local state, dials, and reads everything again.
///
/// # Errors
/// As [`push`].
pub async fn push_afresh(
    home: &AgentHome,
    servers: &[String],
    request: &RunRequest,
) -> Result<RunReport, AgentError> {
    discard_state(home)?;
    let identity = home.agent()?;
    run(home, dial(servers, &identity).await?, &identity, servers, request).await
}

fn discard_state(home: &AgentHome) -> Result<(), AgentError> {
    let dir = home.state();
    state::discard(&dir).map_err(|error| AgentError::File { path: dir, why: error.to_string() })
}

/// Backs up over an open connection, whoever dialled. When that is cut, this side dials `servers` and the run
/// goes on.
///
/// # Errors
/// As [`push`].
pub async fn run(
    home: &AgentHome,
    link: Link,
    identity: &Identity,
    servers: &[String],
    request: &RunRequest,
) -> Result<RunReport, AgentError> {
    let unwilling = request.passage.not_now.as_ref().map(|not_now| not_now.reason.clone());
    let lock = home.lock().inspect_err(|error| link.close(&error.to_string()))?;
    let remote = match (request.passage.open(link, home).await, unwilling) {
        (Err(AgentError::Transfer(_)), Some(reason)) => return Err(AgentError::NotNow(reason)),
        (remote, _) => remote?,
    };
    let watch = Stopwatch::start();
    let request = match with_paths(home, request) {
        Ok(request) => request,
        Err(error) => {
            remote.give_up(error.to_string()).await;
            return Err(error);
        }
    };
    let scene = hooks::Scene { client: remote.welcome().client.clone(), trigger: request.passage.trigger };
    let result = match hooks::before(&request.hooks, &scene).await {
        Ok(()) => run_granted(home, remote, identity, servers, &request, watch).await,
        Err(error) => {
            remote.give_up(error.to_string()).await;
            Err(error)
        }
    };
    let told = hooks::after(&request.hooks, &scene, &result).await;
    drop(lock);
    let mut report = result?;
    if let Err(error) = told {
        let program = PathBuf::from(request.hooks.after.first().cloned().unwrap_or_default());
        report.figures.errors.push((program, error.to_string()));
    }
    if let Some(snapshot) = report.snapshot {
        tracing::info!(client = %report.client, %snapshot, files = report.totals.files, "backed up");
    }
    Ok(report)
}

/// From the server's word that it may to the snapshot.
async fn run_granted(
    home: &AgentHome,
    remote: Remote,
    identity: &Identity,
    servers: &[String],
    request: &RunRequest,
    watch: Stopwatch,
) -> Result<RunReport, AgentError> {
    let again = Passage { trigger: wire::Trigger::Resume, waiting: None, ..request.passage.clone() };
    let redialling = Redialling { home: home.clone(), servers: servers.to_vec(), again };
    let mut stills = match take_stills(home, request).await {
        Ok(stills) => stills,
        Err(error) => {
            remote.give_up(error.to_string()).await;
            return Err(error);
        }
    };
    let (of, mut warnings) = (std::mem::take(&mut stills.of), std::mem::take(&mut stills.warnings));
    let sight = Sight { joints: stills.joints.clone(), since: stills.since, skip: stills.skip.clone() };
    let finished = save(home, request.clone(), sight, remote, redialling).await;
    warnings.extend(stills.release(home).await);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let Finished { saved, remote, redialled } = finished?;
    // A session that this side has dialled is one of its agent's key, whatever the first was.
    let own = if redialled { Some(home.agent()?) } else { None };
    let identity = own.as_ref().unwrap_or(identity);
    let report = match commit(saved, &remote, request, |id| identity.sign(id.as_bytes()), watch) {
        Ok(report) => RunReport { stills: of, warnings, ..report },
        Err(error) => {
            remote.give_up(error.to_string()).await;
            return Err(error);
        }
    };
    remote.close().await;
    Ok(report)
}

/// A stream is of one moment by itself.
async fn take_stills(home: &AgentHome, request: &RunRequest) -> Result<Stills, AgentError> {
    let still = if request.stream.is_some() { Still::Off } else { request.still };
    let want = Want { still, paths: &request.paths, one_file_system: request.one_file_system };
    Stills::take(home, &want).await.map_err(AgentError::Still)
}

/// How the files are looked at.
#[derive(Default)]
struct Sight {
    joints: Joints,
    since: Option<i64>,
    skip: Vec<PathBuf>,
}

fn with_paths(home: &AgentHome, request: &RunRequest) -> Result<RunRequest, AgentError> {
    let mut request = request.clone();
    if request.paths.is_empty() {
        request.paths = home.config()?.paths;
    }
    if request.paths.is_empty() { Err(AgentError::NoPaths) } else { Ok(request) }
}

fn backup_request<'a>(
    home: &'a AgentHome,
    request: RunRequest,
    sight: Sight,
    (state, now): (&'a std::path::Path, &'a (dyn Fn() -> i64 + Sync)),
) -> BackupRequest<'a> {
    let Sight { joints, mut skip, .. } = sight;
    skip.push(home.whole());
    BackupRequest {
        paths: request.paths,
        exclude: request.exclude,
        skip,
        joints,
        one_file_system: request.one_file_system,
        state: Some(state),
        now,
        progress: request.progress,
    }
}

/// How a lost server is found again.
struct Redialling {
    home: AgentHome,
    servers: Vec<String>,
    again: Passage,
}

impl Redialling {
    async fn dial(&self) -> Result<Remote, AgentError> {
        self.again.ways.check()?;
        let link = dial(&self.servers, &self.home.agent()?).await?;
        self.again.open(link, &self.home).await
    }

    /// For threads.
    fn into_fn(self) -> Box<Redial> {
        let runtime = tokio::runtime::Handle::current();
        Box::new(move || runtime.block_on(self.dial()))
    }
}

/// A tree in the vault, and the session in which its snapshot can be made.
struct Finished {
    saved: Saved,
    remote: Remote,
    redialled: bool,
}

/// The threads' part, away from the tasks.
async fn save(
    home: &AgentHome,
    request: RunRequest,
    sight: Sight,
    remote: Remote,
    redialling: Redialling,
) -> Result<Finished, AgentError> {
    let (home, redial) = (home.clone(), redialling.into_fn());
    let work = move || {
        let state = home.state();
        let progress = Arc::clone(&request.progress);
        let pour = request.stream.as_ref();
        let stream = pour.and_then(|pour| pour.lock().unwrap_or_else(PoisonError::into_inner).take());
        let since = sight.since;
        let now = move || since.unwrap_or_else(clock::file_time);
        let request = backup_request(&home, request, sight, (&state, &now));
        let first = remote.welcome().parameters.clone();
        let sink = Resuming::new(remote, redial);
        let result = match stream {
            Some(stream) => backup_stream(stream, &first, &progress, &*sink),
            None => backup(&request, &first, &*sink),
        };
        (result, sink.redialled(), sink.finish())
    };
    let lost = |why: String| AgentError::Transfer(TransferError::Lost(why));
    let (result, redialled, remote) =
        tokio::task::spawn_blocking(work).await.map_err(|error| lost(error.to_string()))?;
    let remote = remote.ok_or_else(|| lost("the session ended".to_owned()))?;
    match result {
        Ok(saved) => Ok(Finished { saved, remote, redialled }),
        Err(error) => {
            remote.give_up(error.to_string()).await;
            Err(error.into())
        }
    }
}

fn commit(
    mut saved: Saved,
    remote: &Remote,
    request: &RunRequest,
    sign: impl FnOnce(&ObjectId) -> Result<Vec<u8>, NetError>,
    watch: Stopwatch,
) -> Result<RunReport, AgentError> {
    let welcome = remote.welcome();
    let (sequence, previous) = welcome
        .grant
        .ok_or_else(|| TransferError::Refused("the server did not grant a backup".to_owned()))?;
    let manifest = Snapshot {
        vault: welcome.vault(),
        client: welcome.client_id,
        sequence,
        previous,
        root: saved.root,
        client_time: clock::now(),
        paths: request.paths.iter().map(|path| path.as_os_str().as_encoded_bytes().to_vec()).collect(),
        tags: request.tags.clone(),
        totals: saved.totals,
        errors: saved.figures.errors.len() as u64,
        not_kept: saved.figures.not_kept.clone(),
    };
    let manifest = manifest.encode().compress(&welcome.parameters.id_key, &mut Packer::new(3)?)?;
    let signature = sign(&manifest.header.id)?;
    let Figures { files_new, files_changed, .. } = saved.figures;
    let changes = match saved.follows {
        Follows::Run => Changes { files_new, files_changed },
        Follows::Nothing => Changes::default(),
    };
    let committed = tokio::task::block_in_place(|| remote.commit(manifest, signature, changes))?;
    if let Some(state) = saved.state.take() {
        state.accept()?;
    }
    Ok(RunReport {
        snapshot: Some(ObjectId::try_from(&committed.snapshot[..])?),
        root: Some(saved.root),
        client: welcome.client.clone(),
        totals: saved.totals,
        figures: saved.figures,
        stills: Vec::new(),
        warnings: Vec::new(),
        bytes_stored: committed.bytes_stored,
        objects_new: committed.objects_new,
        duration_ms: watch.elapsed_ms(),
        due_in: committed.due_in,
    })
}

/// What [`push`] would find to do; the server is asked for the vault's parameters only.
///
/// # Errors
/// The server cannot be reached, or a path is not there.
pub async fn rehearse(
    home: &AgentHome,
    servers: &[String],
    request: &RunRequest,
) -> Result<RunReport, AgentError> {
    let watch = Stopwatch::start();
    let remote = Remote::browse(dial(servers, &home.agent()?).await?, "", &request.passage.ways).await?;
    let request = with_paths(home, request)?;
    let state = home.state();
    let request = backup_request(home, request, Sight::default(), (&state, &clock::file_time));
    let walk = || dry_run(&request, &remote.welcome().parameters);
    let figures: Result<Figures, BackupError> = tokio::task::block_in_place(walk);
    let client = remote.welcome().client.clone();
    remote.close().await;
    Ok(RunReport {
        snapshot: None,
        root: None,
        client,
        totals: Totals::default(),
        figures: figures?,
        stills: Vec::new(),
        warnings: Vec::new(),
        bytes_stored: 0,
        objects_new: 0,
        duration_ms: watch.elapsed_ms(),
        due_in: 0,
    })
}
