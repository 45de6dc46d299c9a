//! What is mounted where: `/proc/self/mountinfo`, and which mount is seen at a path.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    id: u32,
    parent: u32,
    /// What of the file system is mounted: all, or a folder or subvolume.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    /// The file system's type.
    pub(super) kind: String,
    /// The device, or whatever the file system calls its source.
    pub(super) source: String,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Mounts(Vec<Mount>);

impl Mounts {
    /// Reads the text; a line that cannot be read is left out.
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(text.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
    }

    /// The mount that a path leads to, as the kernel finds it: name by name, each mount before those that are in it. What is
    /// mounted in a folder that another mount covers is never seen.
    pub(super) fn at(&self, path: &Path) -> Option<&Mount> {
        let is_known = |id: u32| self.0.iter().any(|mount| mount.id == id);
        let mut at = self.0.iter().find(|mount| {
            mount.point == Path::new("/") && (mount.parent == mount.id || !is_known(mount.parent))
        })?;
        loop {
            let inner = self
                .0
                .iter()
                .filter(|mount| mount.parent == at.id && mount.id != at.id && path.starts_with(&mount.point));
            match inner.min_by_key(|mount| mount.point.components().count()) {
                Some(mount) => at = mount,
                None => return Some(at),
            }
        }
    }

    /// Those that are seen in a folder and below, the folder itself not among them.
    pub(super) fn beneath(&self, path: &Path) -> Vec<&Mount> {
        let is_seen = |mount: &&Mount| self.at(&mount.point).is_some_and(|seen| seen.id == mount.id);
        let inner = self.0.iter().filter(|mount| mount.point != path && mount.point.starts_with(path));
        inner.filter(is_seen).collect()
    }

    /// The mount of all of a source, if it is seen.
    pub(super) fn whole(&self, kind: &str, source: &str) -> Option<&Mount> {
        self.0.iter().find(|mount| {
            mount.kind == kind
                && mount.source == source
                && mount.root == Path::new("/")
                && self.at(&mount.point).is_some_and(|seen| seen.id == mount.id)
        })
    }
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda1 rw`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    let (root, point) = (unescape(fields.nth(1)?), unescape(fields.next()?));
    fields.find(|field| *field == b"-")?;
    let (kind, source) = (unescape(fields.next()?), unescape(fields.next()?));
    let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
    Some(Mount { id, parent, root: path(root), point: path(point), kind: text(kind)?, source: text(source)? })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Blanks, tabs, line ends and backslashes are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, more @ ..] = rest {
        let digits = more.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                out.push(byte);
                rest = &more[3..];
            }
            _ => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const TEXT: &[u8] = b"\
        26 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        30 26 0:5 / /proc rw - proc proc rw\n\
        40 26 0:39 /@home /home rw shared:4 master:2 - btrfs /dev/sdb rw,subvol=/@home\n\
        41 40 0:40 / /home/a\\040b\\134c rw - tmpfs tmpfs rw\n\
        50 26 8:1 / /data/inner rw - xfs /dev/sda1 rw\n\
        51 26 8:2 / /data rw - xfs /dev/sda2 rw\n\
        52 51 8:3 / /data/other rw - xfs /dev/sda3 rw\n\
        53 52 8:4 / /data/other rw - xfs /dev/sda4 rw\n\
        not a line\n";

    #[test]
    fn a_path_leads_to_the_mount_that_is_seen_there() {
        let mounts = Mounts::parse(TEXT);
        let at = |path: &str| mounts.at(Path::new(path)).unwrap().source.clone();
        for (path, source) in [
            ("/", "/dev/vda"),
            ("/homer", "/dev/vda"),
            ("/home", "/dev/sdb"),
            ("/home/ana/x", "/dev/sdb"),
            ("/home/a b\\c/x", "tmpfs"),
            // What was mounted there first is covered by what was mounted above it later.
            ("/data/inner/x", "/dev/sda2"),
            ("/data/other/x", "/dev/sda4"),
        ] {
            assert_eq!(at(path), source, "{path}");
        }
        let beneath = |path: &str| {
            let seen = mounts.beneath(Path::new(path));
            seen.into_iter().map(|mount| mount.source.clone()).collect::<Vec<_>>()
        };
        assert_eq!(beneath("/home"), ["tmpfs"]);
        assert_eq!(beneath("/data"), ["/dev/sda4"]);
        assert_eq!(beneath("/"), ["proc", "/dev/sdb", "tmpfs", "/dev/sda2", "/dev/sda4"]);
        assert_eq!(mounts.at(Path::new("/home")).unwrap().root, Path::new("/@home"));
        assert!(mounts.whole("btrfs", "/dev/sdb").is_none() && mounts.whole("xfs", "/dev/sda1").is_none());
        assert!(mounts.whole("xfs", "/dev/sda2").is_some());
    }
}
