//! Which folders lie on which part of which file system, and so of what a still is to be made and what is read from it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::mounts::{Mount, Mounts};

/// What one still is made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    /// A subvolume, by its path from the top one.
    Btrfs { device: String, subvolume: PathBuf },
    /// A dataset, and where it is mounted.
    Zfs { dataset: String, at: PathBuf },
    /// What is on a device, if that is a logical volume.
    Lvm { device: String, kind: String },
}

/// A subvolume of btrfs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subvolume {
    /// From the top one.
    pub(super) path: PathBuf,
    /// It does not change: it is a still itself.
    pub(super) is_fixed: bool,
}

/// Subvolumes by the device that they are on.
pub(super) type Subvolumes = BTreeMap<String, Vec<Subvolume>>;

/// A folder to save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// As the walk names it.
    pub(super) path: PathBuf,
    /// Without symbolic links.
    pub(super) real: PathBuf,
}

/// How far a backup goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Into all that is mounted below.
    Everything,
    /// It stays on the file systems of its paths.
    OneFileSystem,
}

/// A folder where another file system, or a part of one, begins for the walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    /// As the walk names it.
    pub(super) path: PathBuf,
    /// Where it is.
    pub(super) live: PathBuf,
    /// Its file system's type.
    pub(super) kind: String,
    /// A still of this would have it; none where no still is wanted or can be made.
    pub(super) unit: Option<Unit>,
    /// At this place in it.
    pub(super) below: PathBuf,
    /// It is one of the folders to save, not something in one.
    pub(super) is_named: bool,
    /// It does not change: no still is needed.
    pub(super) is_fixed: bool,
}

/// File systems whose stills are made of the device below them.
const ON_DEVICES: [&str; 6] = ["ext2", "ext3", "ext4", "xfs", "f2fs", "vfat"];

/// The devices whose subvolumes have to be known.
pub(super) fn btrfs_devices(mounts: &Mounts, wanted: &[Wanted]) -> BTreeSet<String> {
    let all = wanted.iter().flat_map(|wanted| {
        let at = mounts.at(&wanted.real);
        at.into_iter().chain(mounts.beneath(&wanted.real))
    });
    all.filter(|mount| mount.kind == "btrfs").map(|mount| mount.source.clone()).collect()
}

/// All spots of the folders to save, those that are named first.
pub(super) fn spots(mounts: &Mounts, wanted: &[Wanted], subvolumes: &Subvolumes, reach: Reach) -> Vec<Spot> {
    let mut spots = Vec::new();
    for Wanted { path, real } in wanted {
        let Some(mount) = mounts.at(real) else { continue };
        let spot = |live: &Path, mount: &Mount| {
            let path = live.strip_prefix(real).map_or_else(|_| path.clone(), |rest| joined(path, rest));
            spot(path, live, mount, mounts, subvolumes)
        };
        spots.push(Spot { is_named: true, ..spot(real, mount) });
        let inner = mounts.beneath(real);
        let mut below: Vec<Spot> = inner.iter().map(|mount| spot(&mount.point, mount)).collect();
        for mount in inner.into_iter().chain([mount]).filter(|mount| mount.kind == "btrfs") {
            for subvolume in subvolumes.get(&mount.source).into_iter().flatten() {
                let Some(live) = seen_at(mount, &subvolume.path) else { continue };
                let is_inner = live != *real && live != mount.point && live.starts_with(real);
                if is_inner && mounts.at(&live) == Some(mount) {
                    below.push(spot(&live, mount));
                }
            }
        }
        if reach == Reach::OneFileSystem {
            below.iter_mut().for_each(|spot| spot.unit = None);
        }
        spots.append(&mut below);
    }
    let mut known = BTreeSet::new();
    spots.retain(|spot| known.insert(spot.path.clone()));
    spots
}

/// Where something of a file system is seen by way of a mount.
fn seen_at(mount: &Mount, path: &Path) -> Option<PathBuf> {
    let rest = Path::new("/").join(path).strip_prefix(&mount.root).ok()?.to_owned();
    Some(joined(&mount.point, &rest))
}

/// `Path::join` leaves a `/` at the end when there is nothing to join.
fn joined(path: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { path.to_owned() } else { path.join(rest) }
}

fn spot(path: PathBuf, live: &Path, mount: &Mount, mounts: &Mounts, subvolumes: &Subvolumes) -> Spot {
    let inside = live.strip_prefix(&mount.point).unwrap_or(Path::new(""));
    let from_root = mount.root.join(inside);
    let from_root = from_root.strip_prefix("/").unwrap_or(&from_root).to_owned();
    let none = Spot {
        path,
        live: live.to_owned(),
        kind: mount.kind.clone(),
        unit: None,
        below: PathBuf::new(),
        is_named: false,
        is_fixed: false,
    };
    let source = mount.source.clone();
    match mount.kind.as_str() {
        "btrfs" => {
            let all = subvolumes.get(&source).into_iter().flatten();
            let holding = all.filter(|subvolume| from_root.starts_with(&subvolume.path));
            let holding = holding.max_by_key(|subvolume| subvolume.path.components().count());
            if holding.is_some_and(|subvolume| subvolume.is_fixed) {
                return Spot { is_fixed: true, ..none };
            }
            // The top one is in no list.
            let subvolume = holding.map(|subvolume| subvolume.path.clone()).unwrap_or_default();
            let below = from_root.strip_prefix(&subvolume).unwrap_or(&from_root).to_owned();
            Spot { unit: Some(Unit::Btrfs { device: source, subvolume }), below, ..none }
        }
        "zfs" => match mounts.whole("zfs", &source) {
            Some(whole) => {
                let unit = Unit::Zfs { dataset: source, at: whole.point.clone() };
                Spot { unit: Some(unit), below: from_root, ..none }
            }
            None => none,
        },
        kind if ON_DEVICES.contains(&kind) && source.starts_with("/dev/") => {
            let unit = Unit::Lvm { device: source, kind: kind.to_owned() };
            Spot { unit: Some(unit), below: from_root, ..none }
        }
        _ => none,
    }
}
