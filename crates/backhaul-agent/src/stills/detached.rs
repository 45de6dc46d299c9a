//! Mounts that are nowhere: only who holds the descriptor sees them, and with it they go, also when the process is killed.

use std::io;
use std::os::fd::OwnedFd;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

/// What mounting has to do with what is on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Journal {
    /// The file system is mounted already: this is another view of it, and asks nothing of it.
    None,
    /// It is one of its own, to be read only.
    ReadOnly,
}

/// Mounts a device, read-only, with options. (Linux 5.2.)
pub(super) fn mount(
    kind: &str,
    device: &str,
    options: &[(&str, &str)],
    journal: Journal,
) -> io::Result<OwnedFd> {
    let mounted = attempt(kind, device, options, journal == Journal::ReadOnly);
    match (mounted, journal) {
        // A file system that is read-only now cannot have a view that says otherwise.
        (Err(_), Journal::None) => attempt(kind, device, options, true),
        (mounted, _) => mounted,
    }
    .map_err(io::Error::from)
}

fn attempt(
    kind: &str,
    device: &str,
    options: &[(&str, &str)],
    read_only: bool,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", device)?;
    for (key, value) in options {
        match value.is_empty() {
            true => fsconfig_set_flag(&context, *key)?,
            false => fsconfig_set_string(&context, *key, *value)?,
        }
    }
    if read_only {
        fsconfig_set_flag(&context, "ro")?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
