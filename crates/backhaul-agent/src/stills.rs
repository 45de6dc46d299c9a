//! Stills: snapshots that a file system makes of itself for the time of a backup, so that what is saved is of one moment.
//!
//! - [`mounts`]: what is mounted where; [`plan`]: of which parts of which file systems stills are to be made, and what is
//!   then read where. Both are pure;
//! - [`btrfs`], [`zfs`], [`lvm`]: how each is made and removed, by the [`tool`]s that their own people wrote;
//! - [`detached`]: how one is mounted where nobody else sees it;
//! - [`ledger`]: what there is to remove, whatever happens.
//!
//! Invariants:
//! - a still is written down before it is made, and crossed out after it is gone: what a killed run has left, the next removes;
//! - nothing changes in anybody's folders: no still lies in one, none is mounted in one;
//! - where there can be no still, files are saved as they change, with a warning where one was to be expected;
//! - what is known of files does not depend on whether they were read from a still (`backhaul_archive::backup::joints`).

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backhaul_archive::backup::joints::{Joint, Joints};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::home::AgentHome;

mod btrfs;
mod detached;
mod ledger;
mod lvm;
mod mounts;
mod plan;
mod tool;
mod zfs;

use ledger::{Ledger, Trace};
use mounts::Mounts;
use plan::{Reach, Spot, Subvolumes, Unit, Wanted};
use tool::{Programs, Refusal, Tools};

/// More than this are not made in one run: who has so many subvolumes has them for something else.
const STILLS_MAX: usize = 256;
/// How often a still that is busy is tried to be removed, and the pause between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(300);

/// Whether files are saved from stills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Still {
    /// Never.
    Off,
    /// Where root runs the backup and the file system can: else as they change.
    #[default]
    Auto,
    /// If there cannot be one of every path to save, there is no backup.
    Require,
}

/// What stills are wanted of.
pub(crate) struct Want<'w> {
    pub(crate) still: Still,
    pub(crate) paths: &'w [PathBuf],
    pub(crate) one_file_system: bool,
}

/// The stills of one run.
#[derive(Default)]
pub(crate) struct Stills {
    /// What is read from them.
    pub(crate) joints: Joints,
    /// When the first was made, as files are stamped.
    pub(crate) since: Option<i64>,
    /// What of our own is not to be saved.
    pub(crate) skip: Vec<PathBuf>,
    /// What they are of, in words.
    pub(crate) of: Vec<String>,
    /// What could not be done, in words.
    pub(crate) warnings: Vec<String>,
    made: Vec<Trace>,
    ledger: Option<Ledger>,
}

/// A still that was made.
struct Made {
    root: Arc<OwnedFd>,
    of: &'static str,
}

type Outcomes = BTreeMap<Unit, Result<Made, String>>;

impl Stills {
    /// Removes what an earlier run has left, and makes those that are wanted.
    ///
    /// # Errors
    /// In words: they are required, and one cannot be made. None is left then.
    pub(crate) async fn take(home: &AgentHome, want: &Want<'_>) -> Result<Self, String> {
        let mounts = std::fs::read("/proc/self/mountinfo").map(|text| Mounts::parse(&text));
        Maker { tools: &Programs, home: home.dir(), mounts: mounts.unwrap_or_default() }.take(want).await
    }

    /// Removes them; says what is left.
    pub(crate) async fn release(self, home: &AgentHome) -> Vec<String> {
        Maker { tools: &Programs, home: home.dir(), mounts: Mounts::default() }.release(self).await
    }
}

/// Makes and removes stills.
struct Maker<'m, T> {
    tools: &'m T,
    home: &'m Path,
    mounts: Mounts,
}

impl<T: Tools> Maker<'_, T> {
    async fn take(&self, want: &Want<'_>) -> Result<Stills, String> {
        let mut ledger = match Ledger::open(self.home.join("stills.json")) {
            Ok(ledger) => ledger,
            Err(error) if want.still == Still::Require => return Err(format!("stills.json: {error}")),
            Err(error) => {
                let warnings = vec![format!("no stills are made, for stills.json cannot be read: {error}")];
                return Ok(Stills { warnings, ..Stills::default() });
            }
        };
        let mut warnings = self.sweep(&mut ledger).await;
        let is_root = rustix::process::geteuid().is_root();
        match want.still {
            Still::Require if !is_root => return Err("only root may make one".to_owned()),
            Still::Auto | Still::Require if is_root => {}
            _ => return Ok(Stills { warnings, ..Stills::default() }),
        }
        let since = clock::file_time();
        let spots = self.spots(want, &mut warnings).await;
        let mut stills = Stills { ledger: Some(ledger), warnings, ..Stills::default() };
        let outcomes = self.make_all(&spots, &mut stills).await;
        if want.still == Still::Require
            && let Some(why) = lacking(&spots, &outcomes)
        {
            drop(outcomes);
            self.release(stills).await;
            return Err(why);
        }
        stills.since = (!stills.made.is_empty()).then_some(since);
        stills.arrange(&spots, &outcomes);
        Ok(stills)
    }

    /// What there is to save, by file system.
    async fn spots(&self, want: &Want<'_>, warnings: &mut Vec<String>) -> Vec<Spot> {
        let wanted: Vec<Wanted> = want.paths.iter().filter_map(|path| folder_of(path)).collect();
        let mut subvolumes = Subvolumes::new();
        let mut unknown = Vec::new();
        for device in plan::btrfs_devices(&self.mounts, &wanted) {
            match btrfs::list(self.tools, &device, self.home).await {
                Ok(found) => drop(subvolumes.insert(device, found)),
                Err(why) => {
                    warnings
                        .push(format!("what is on {device} is saved as it changes: no stills of it: {why}"));
                    unknown.push(device);
                }
            }
        }
        let reach = if want.one_file_system { Reach::OneFileSystem } else { Reach::Everything };
        let mut spots = plan::spots(&self.mounts, &wanted, &subvolumes, reach);
        for spot in &mut spots {
            if matches!(&spot.unit, Some(Unit::Btrfs { device, .. }) if unknown.contains(device)) {
                spot.unit = None;
            }
        }
        spots
    }

    async fn make_all(&self, spots: &[Spot], stills: &mut Stills) -> Outcomes {
        let stem = blake3::hash(self.home.as_os_str().as_encoded_bytes()).to_hex();
        let stem = format!("backhaul-{}-{}-{}", &stem[..8], clock::now(), std::process::id());
        let mut outcomes = Outcomes::new();
        let mut pools: BTreeMap<&str, Vec<(&String, &PathBuf)>> = BTreeMap::new();
        for (number, unit) in units(spots).into_iter().enumerate() {
            let name = format!("{stem}-{number}");
            let made = match unit {
                Unit::Zfs { dataset, at } => {
                    pools.entry(zfs::pool(dataset)).or_default().push((dataset, at));
                    continue;
                }
                Unit::Btrfs { device, subvolume } => {
                    let trace = Trace::Btrfs { device: device.clone(), name: name.clone() };
                    let make = btrfs::make(self.tools, device, subvolume, &name, self.home);
                    self.make(stills, vec![trace], make).await.map(|fd| Some(("btrfs", fd)))
                }
                Unit::Lvm { device, kind } => match lvm::find(self.tools, device).await {
                    // It is on something else: nobody expects a still.
                    Err(_) => Ok(None),
                    Ok(volume) => {
                        let trace = Trace::Lvm { volume: lvm::full_name(&volume, &name) };
                        let make = lvm::make(self.tools, &volume, &name, kind);
                        self.make(stills, vec![trace], make).await.map(|fd| Some(("LVM", fd)))
                    }
                },
            };
            note(&mut outcomes, unit, made);
        }
        for datasets in pools.into_values() {
            let names: Vec<String> =
                datasets.iter().map(|(dataset, _)| zfs::full_name(dataset, &stem)).collect();
            let traces = names.iter().map(|name| Trace::Zfs { snapshot: name.clone() }).collect();
            let made = self.make(stills, traces, zfs::make(self.tools, &names)).await;
            for (dataset, at) in datasets {
                let opened = made.clone().and_then(|()| zfs::opened(at, &stem).map_err(|e| e.to_string()));
                let unit = Unit::Zfs { dataset: dataset.clone(), at: at.clone() };
                note(&mut outcomes, &unit, opened.map(|fd| Some(("ZFS", fd))));
            }
        }
        outcomes
    }

    /// Makes one still, or several in one step; what fails half-way leaves nothing.
    async fn make<R>(
        &self,
        stills: &mut Stills,
        traces: Vec<Trace>,
        make: impl Future<Output = Result<R, Refusal>>,
    ) -> Result<R, String> {
        let Some(ledger) = &mut stills.ledger else { return Err("there is no ledger".to_owned()) };
        if stills.made.len() + traces.len() > STILLS_MAX {
            return Err(format!("more than {STILLS_MAX} at a time are not made"));
        }
        ledger.add(&traces).map_err(|error| format!("stills.json: {error}"))?;
        match make.await {
            Ok(made) => {
                stills.made.extend(traces);
                Ok(made)
            }
            Err(why) => {
                for trace in &traces {
                    stills.warnings.extend(self.remove(ledger, trace).await.err());
                }
                Err(why.to_string())
            }
        }
    }

    async fn release(&self, stills: Stills) -> Vec<String> {
        let Stills { joints, made, ledger, .. } = stills;
        // Nothing is removed while it is mounted.
        drop(joints);
        let mut left = Vec::new();
        let Some(mut ledger) = ledger else { return left };
        for trace in made {
            if let Trace::Lvm { volume } = &trace
                && lvm::is_lost(self.tools, volume).await
            {
                left.push(format!(
                    "the still {volume} ran full, and what was to be read from it then is not saved"
                ));
            }
            left.extend(self.remove(&mut ledger, &trace).await.err());
        }
        left
    }

    /// Removes what an earlier run has left.
    async fn sweep(&self, ledger: &mut Ledger) -> Vec<String> {
        let mut left = Vec::new();
        for trace in ledger.traces().to_vec() {
            left.extend(self.remove(ledger, &trace).await.err());
        }
        left
    }

    async fn remove(&self, ledger: &mut Ledger, trace: &Trace) -> Result<(), String> {
        let mut last = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let removed = match trace {
                Trace::Btrfs { device, name } => btrfs::remove(self.tools, device, name, self.home).await,
                Trace::Zfs { snapshot } => zfs::remove(self.tools, snapshot).await,
                Trace::Lvm { volume } => lvm::remove(self.tools, volume).await,
            };
            match removed {
                Ok(()) => return ledger.strike(trace).map_err(|error| format!("stills.json: {error}")),
                Err(why @ Refusal::Missing(_)) => {
                    last = Some(why);
                    break;
                }
                Err(why) => last = Some(why),
            }
        }
        let (name, why) = (trace.name(), last.map(|why| why.to_string()).unwrap_or_default());
        Err(format!("the still {name} could not be removed; the next backup tries again: {why}"))
    }
}

impl Stills {
    /// Says what is read where, and what of it cannot be read from a still.
    fn arrange(&mut self, spots: &[Spot], outcomes: &Outcomes) {
        let mut named = Vec::new();
        for spot in spots {
            if let Some(Unit::Btrfs { subvolume, .. }) = &spot.unit
                && subvolume.as_os_str().is_empty()
                && spot.below.as_os_str().is_empty()
            {
                self.skip.push(spot.path.join(btrfs::FOLDER));
            }
            let Some(unit) = spot.unit.as_ref().filter(|unit| !named.contains(unit)) else { continue };
            named.push(unit);
            match outcomes.get(unit) {
                Some(Ok(made)) => self.of.push(format!("{} ({})", spot.path.display(), made.of)),
                Some(Err(why)) => {
                    let path = spot.path.display();
                    self.warnings.push(format!("{path} is saved as it changes: no still of it: {why}"));
                }
                None => {}
            }
        }
        if self.made.is_empty() {
            return;
        }
        let top = rustix::fs::open(
            "/",
            rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let top = top.ok().map(Arc::new);
        let joint = |spot: &Spot| {
            let path = spot.path.clone();
            match spot.unit.as_ref().and_then(|unit| outcomes.get(unit)) {
                Some(Ok(made)) => {
                    let volume = std::fs::symlink_metadata(&spot.live).map(|meta| meta.dev()).ok();
                    Some(Joint { path, root: Arc::clone(&made.root), below: spot.below.clone(), volume })
                }
                _ => {
                    let below = spot.live.strip_prefix("/").unwrap_or(&spot.live).to_owned();
                    Some(Joint { path, root: Arc::clone(top.as_ref()?), below, volume: None })
                }
            }
        };
        self.joints = Joints::new(spots.iter().filter_map(joint).collect());
    }
}

impl Trace {
    fn name(&self) -> &str {
        match self {
            Self::Btrfs { name, .. } => name,
            Self::Zfs { snapshot } => snapshot,
            Self::Lvm { volume } => volume,
        }
    }
}

/// The folder that a path is or is in: a link itself, and a file, are read in theirs.
fn folder_of(path: &Path) -> Option<Wanted> {
    let is_folder = std::fs::symlink_metadata(path).ok()?.is_dir();
    let path = if is_folder { path } else { path.parent()? };
    Some(Wanted { path: path.to_owned(), real: std::fs::canonicalize(path).ok()? })
}

/// Each once, in the order of the spots.
fn units(spots: &[Spot]) -> Vec<&Unit> {
    let mut units = Vec::new();
    for unit in spots.iter().filter_map(|spot| spot.unit.as_ref()) {
        if !units.contains(&unit) {
            units.push(unit);
        }
    }
    units
}

fn note(outcomes: &mut Outcomes, unit: &Unit, made: Result<Option<(&'static str, OwnedFd)>, String>) {
    let made = made.map(|made| made.map(|(of, fd)| Made { root: Arc::new(fd), of }));
    if let Some(made) = made.transpose() {
        outcomes.insert(unit.clone(), made);
    }
}

/// Why not all that is named is read from a still, if so.
fn lacking(spots: &[Spot], outcomes: &Outcomes) -> Option<String> {
    spots.iter().filter(|spot| spot.is_named && !spot.is_fixed).find_map(|spot| {
        let (path, kind) = (spot.path.display(), &spot.kind);
        match spot.unit.as_ref().map(|unit| outcomes.get(unit)) {
            Some(Some(Ok(_))) => None,
            Some(Some(Err(why))) => Some(format!("{path}: {why}")),
            Some(None) => Some(format!("{path}: it is {kind} and on no logical volume")),
            None => Some(format!("{path}: it is {kind}, of which there are no stills here")),
        }
    })
}

#[cfg(test)]
mod tests;
