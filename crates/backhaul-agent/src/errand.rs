//! Restores that the server's operator orders: what the owner of this machine allows, and how one is carried out.
//!
//! The config of this machine decides, whatever the server says: without a word there, nothing is restored. The target is
//! opened name by name beneath a folder that the config names, and no link is followed on the way.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backhaul_archive::patterns::{Case, Patterns};
use backhaul_archive::restore::{Overwrite, RestoreProgress, RestoreRequest, Restored, Selection, restore};
use backhaul_object::ObjectId;
use backhaul_proto::errand::News;
use backhaul_proto::wire;
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::remote::Remote;

/// How often it is said how far a restore is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Errors that are told by name, and bytes of them: they travel in one frame.
const ERRORS_MAX: usize = 1_000;
const ERRORS_BYTES: usize = 256 << 10;

/// `[restore]` of the config.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restores {
    /// The server's operator may.
    pub allow: bool,
    /// Into these folders, and what is in them.
    pub targets: Vec<PathBuf>,
}

impl Restores {
    /// True when the config says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The allowed folder that a target is in, and the names from there to it.
    fn admit<'t>(&self, target: &'t Path) -> Result<(&Path, &'t Path), String> {
        if !self.allow {
            return Err("this machine takes no restores from the server: its owner may allow them by \
                        [restore] allow = true and targets = [...] in the agent's config.toml"
                .to_owned());
        }
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !target.is_absolute() || !target.components().all(plain) {
            return Err(format!("{} is no absolute path without ..", target.display()));
        }
        let within = |allowed: &PathBuf| target.strip_prefix(allowed).ok();
        let found = self.targets.iter().find_map(|allowed| within(allowed).map(|rest| (&**allowed, rest)));
        found.ok_or_else(|| {
            let allowed: Vec<String> = self.targets.iter().map(|path| path.display().to_string()).collect();
            let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
            format!("{} is in no folder that this machine's config allows ({allowed})", target.display())
        })
    }

    /// Opens the target, made if it is not there; none if it is not there and `make` is not wanted.
    fn open(&self, target: &Path, make: Make) -> Result<Option<OwnedFd>, String> {
        let (allowed, rest) = self.admit(target)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let why = |path: &Path, error: Errno| format!("{}: {error}", path.display());
        let mut at = fs::openat(CWD, allowed, flags, Mode::empty()).map_err(|error| match error {
            // It is made by nobody but its owner: the way to it may lead through links.
            Errno::NOENT => format!("{} is not there on that machine: make it first", allowed.display()),
            error => why(allowed, error),
        })?;
        let mut path = allowed.to_path_buf();
        for name in rest {
            path.push(name);
            let open = || fs::openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty());
            at = match open() {
                Err(Errno::NOENT) if make == Make::No => return Ok(None),
                Err(Errno::NOENT) => {
                    fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)).map_err(|error| why(&path, error))?;
                    open().map_err(|error| why(&path, error))?
                }
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(format!("{} is no folder, or a link to one", path.display()));
                }
                other => other.map_err(|error| why(&path, error))?,
            };
        }
        Ok(Some(at))
    }
}

/// Whether a target is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    Yes,
    No,
}

/// What is to be done, once it is allowed.
struct Errand {
    request: RestoreRequest,
    root: ObjectId,
    path: Option<Vec<u8>>,
    /// The target by its name, and open.
    target: PathBuf,
    _open: Option<OwnedFd>,
}

impl Errand {
    fn new(order: &wire::RestoreOrder, restores: &Restores, remote: &Remote) -> Result<Self, String> {
        let target = PathBuf::from(OsStr::from_bytes(&order.target));
        let open = restores.open(&target, if order.dry_run { Make::No } else { Make::Yes })?;
        let patterns = |texts: &[String]| {
            Patterns::new(texts.iter().map(|text| (text.as_str(), Case::Sensitive)))
                .map_err(|error| error.to_string())
        };
        let place = match &open {
            Some(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
            None => target.clone(),
        };
        let request = RestoreRequest {
            verify: order.verify,
            dry_run: order.dry_run,
            overwrite: match order.overwrite() {
                wire::Overwrite::IfChanged => Overwrite::IfChanged,
                wire::Overwrite::Always => Overwrite::Always,
                wire::Overwrite::IfNewer => Overwrite::IfNewer,
                wire::Overwrite::Never => Overwrite::Never,
            },
            select: Selection { include: patterns(&order.include)?, exclude: patterns(&order.exclude)? },
            delete: order.delete,
            id_key: Some(remote.welcome().parameters.id_key.clone()),
            ..RestoreRequest::to(place)
        };
        let root = ObjectId::try_from(&order.root[..]).map_err(|error| error.to_string())?;
        let path = order.path.as_ref().map(|path| path.to_vec());
        Ok(Self { request, root, path, target, _open: open })
    }

    /// Blocks until it is done.
    fn carry_out(self, remote: &Remote) -> wire::RestoreResult {
        match restore(remote, self.root, self.path.as_deref(), &self.request) {
            Ok(restored) => result(restored, &self.request.target, &self.target),
            Err(error) => wire::RestoreResult { failure: error.to_string(), ..Default::default() },
        }
    }
}

/// Carries out what a session is for, if that is allowed here, and says goodbye.
pub async fn run(remote: Remote, restores: &Restores) {
    let Some(order) = remote.welcome().errand.clone() else { return remote.close().await };
    let errand = match Errand::new(&order, restores, &remote) {
        Ok(errand) => errand,
        Err(why) => {
            tracing::warn!("a restore that the server's operator ordered is refused: {why}");
            remote.tell(News::refusal(why));
            return remote.close().await;
        }
    };
    tracing::info!("restores to {} for the server's operator", errand.target.display());
    remote.tell(News::Answer(wire::RestoreAnswer::default()));
    let (progress, remote) = (Arc::clone(&errand.request.progress), Arc::new(remote));
    let working = Arc::clone(&remote);
    let mut work = tokio::task::spawn_blocking(move || errand.carry_out(&working));
    let mut tick = tokio::time::interval(PROGRESS_EVERY);
    let result = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = tick.tick() => remote.tell(News::Progress(so_far(&progress))),
        }
    };
    let result = result
        .unwrap_or_else(|error| wire::RestoreResult { failure: error.to_string(), ..Default::default() });
    let (files, errors, failure) = (result.files, result.errors.len(), &result.failure);
    tracing::info!("restored {files} files for the server's operator; {errors} errors {failure}");
    remote.tell(News::Result(Box::new(result)));
    if let Some(remote) = Arc::into_inner(remote) {
        remote.close().await;
    }
}

fn so_far(progress: &RestoreProgress) -> wire::RestoreProgress {
    wire::RestoreProgress {
        files: progress.files.load(Ordering::Relaxed),
        bytes: progress.bytes.load(Ordering::Relaxed),
    }
}

/// What of the result travels; paths are those that people know.
fn result(restored: Restored, place: &Path, target: &Path) -> wire::RestoreResult {
    let Restored { files, dirs, symlinks, special, bytes, skipped, deleted, errors, unset } = restored;
    let (mut told, mut room, all) = (Vec::new(), ERRORS_BYTES, (errors.len(), unset.len()));
    let errors = errors.into_iter().map(|error| (error, false));
    let amiss = errors.chain(unset.into_iter().map(|unset| (unset, true)));
    for ((path, why), is_there) in amiss.take(ERRORS_MAX) {
        let path = path.strip_prefix(place).map_or(path.clone(), |rest| target.join(rest));
        let path = path.as_os_str().as_bytes().to_vec();
        let Some(left) = room.checked_sub(path.len() + why.len()) else { break };
        room = left;
        told.push(wire::RestoreError { path: path.into(), why, is_there });
    }
    let of_metadata = told.iter().filter(|error: &&wire::RestoreError| error.is_there).count();
    let errors_more = (all.0 - (told.len() - of_metadata)) as u64;
    let unset_more = (all.1 - of_metadata) as u64;
    let failure = String::new();
    wire::RestoreResult {
        files,
        dirs,
        symlinks,
        special,
        bytes,
        skipped,
        deleted,
        errors: told,
        errors_more,
        failure,
        unset_more,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_the_config_names_is_a_target() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = dir.path().canonicalize().unwrap().join("in");
        std::fs::create_dir(&allowed).unwrap();
        symlink("/etc", allowed.join("link")).unwrap();
        std::fs::write(allowed.join("file"), b"").unwrap();
        let refused =
            |restores: &Restores, target: &str| restores.open(Path::new(target), Make::Yes).unwrap_err();
        let at = |name: &str| format!("{}{name}", allowed.display());
        let none = Restores::default();
        assert!(refused(&none, &at("")).contains("[restore] allow = true"));
        let nowhere = Restores { allow: true, targets: Vec::new() };
        assert!(refused(&nowhere, &at("")).contains("(none)"));
        let restores = Restores { allow: true, targets: vec![allowed.clone()] };
        for wrong in
            ["", "x", "/etc", &at("-beside"), &at("/../x"), &at("/link"), &at("/link/x"), &at("/file")]
        {
            refused(&restores, wrong);
        }
        assert!(!allowed.join("link/x").exists());
        assert!(restores.open(Path::new(&at("/a/b")), Make::No).unwrap().is_none());
        assert!(!allowed.join("a").exists());
        assert!(restores.open(Path::new(&at("/a/b")), Make::Yes).unwrap().is_some());
        assert!(restores.open(&allowed, Make::Yes).unwrap().is_some());
        assert!(allowed.join("a/b").is_dir());
    }

    #[test]
    fn a_result_fits_into_a_frame_and_names_the_target() {
        let place = Path::new("/proc/self/fd/7");
        let errors = (0..5_000).map(|i| (place.join(format!("f{i}")), "no".repeat(50))).collect();
        let told = result(Restored { errors, ..Restored::default() }, place, Path::new("/srv/back"));
        assert_eq!(&told.errors[0].path[..], b"/srv/back/f0");
        assert_eq!(told.errors.len() as u64 + told.errors_more, 5_000);
        assert_eq!(told.errors.len(), 1_000);
    }
}
