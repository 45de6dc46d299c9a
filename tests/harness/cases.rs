//! The matrix of what a backup must keep: one case each in files, links, folders and special files, made by system calls
//! and compared by [`trees`](crate::trees), neither of which is the code that is tested.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, IFlags, Timespec, Timestamps, fallocate, ioctl_ficlone,
    ioctl_getflags, ioctl_setflags, makedev, utimensat,
};
use rustix::io::Errno;

use crate::trees::{acl, attribute, noise, sparse, special};

mod beside;

use beside::{CAPABILITY, top};

/// Kinds of things that a name stands for; the last is root's alone.
const KINDS: [&str; 6] = ["file", "dir", "symlink", "fifo", "socket", "device"];

/// Makes something of a kind; false where nobody may.
fn make(path: &Path, kind: &str) -> bool {
    let (dir, name) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap());
    match kind {
        "file" => fs::write(path, format!("content of {name}")).is_ok(),
        "dir" => fs::create_dir(path).and_then(|()| fs::write(path.join("in it"), name)).is_ok(),
        "symlink" => symlink(format!("to {name}"), path).is_ok(),
        "fifo" => special(dir, name, FileType::Fifo, 0).is_ok(),
        "socket" => special(dir, name, FileType::Socket, 0).is_ok(),
        _ => special(dir, name, FileType::CharacterDevice, makedev(1, 3)).is_ok(),
    }
}

/// A file of holes: its name, its length, and where how much noise is.
type Layout = (&'static str, u64, &'static [(u64, usize)]);

/// How many cases of each group could be made.
#[derive(Debug, Default)]
pub struct Made(BTreeMap<&'static str, usize>);

impl Made {
    /// Of all groups together.
    pub fn all(&self) -> usize {
        self.0.values().sum()
    }

    /// Fails if there are fewer of a group: a test of what could not be made says nothing.
    pub fn assert_at_least(&self, wanted: &[(&str, usize)]) {
        for (group, least) in wanted {
            assert!(
                self.0[group] >= *least,
                "only {} of {group}, {least} are to be made: {self:?}",
                self.0[group]
            );
        }
    }
}

/// A folder of cases and how many there are by now.
pub struct Cases {
    root: PathBuf,
    kinds: &'static [&'static str],
    made: usize,
}

impl Cases {
    /// All cases that this machine and its file system can have, below a folder. As somebody other than root those that
    /// root alone can make or read are left out.
    pub fn all(root: &Path, privileged: bool) -> Made {
        fs::create_dir_all(root).unwrap();
        let kinds = if privileged { &KINDS[..] } else { &KINDS[..5] };
        let mut cases = Self { root: root.to_owned(), kinds, made: 0 };
        type Group = fn(&mut Cases, bool);
        let groups: [(&str, Group); 11] = [
            ("sizes", |cases, _| cases.sizes()),
            ("modes", Self::modes),
            ("names", |cases, _| cases.names()),
            ("links", |cases, _| cases.links()),
            ("holes", |cases, _| cases.holes()),
            ("attributes", Self::attributes),
            ("depths", |cases, _| cases.depths()),
            ("owners", |cases, privileged| {
                if privileged {
                    cases.owners()
                }
            }),
            ("devices", |cases, privileged| {
                if privileged {
                    cases.devices()
                }
            }),
            ("flags", Self::flags),
            // Last: whatever is made in a folder changes its time.
            ("times", |cases, _| cases.times()),
        ];
        let mut made = Made::default();
        for (name, make) in groups {
            let before = cases.made;
            make(&mut cases, privileged);
            made.0.insert(name, cases.made - before);
        }
        made.0.insert("top", top(root, privileged));
        made
    }

    /// A new folder for a group.
    fn group(&self, name: &str) -> PathBuf {
        let dir = self.root.join(name);
        fs::create_dir(&dir).unwrap();
        dir
    }

    fn sizes(&mut self) {
        let dir = self.group("sizes");
        let edges = [1, 512, 4_096, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 4 << 20, 9 << 20];
        for size in edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]) {
            fs::write(dir.join(format!("{size}")), noise(size, size as u64)).unwrap();
            fs::write(dir.join(format!("{size} zeros")), vec![0; size]).unwrap();
            self.made += 2;
        }
    }

    fn modes(&mut self, privileged: bool) {
        let dir = self.group("modes");
        for mode in 0..0o10_000 {
            // What its owner cannot read is not saved, and that is another test's.
            if !privileged && mode & 0o400 == 0 {
                continue;
            }
            let path = dir.join(format!("{mode:04o}"));
            fs::write(&path, "m").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            self.made += 1;
        }
        let dir = self.group("folder modes");
        for mode in (0..0o10_000).step_by(7) {
            if !privileged && mode & 0o500 != 0o500 {
                continue;
            }
            let path = dir.join(format!("{mode:04o}"));
            make(&path, "dir");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            self.made += 1;
        }
    }

    fn names(&mut self) {
        let dir = self.group("names");
        let mut names: Vec<Vec<u8>> =
            (1..=255u8).filter(|byte| *byte != b'/' && *byte != b'.').map(|byte| vec![byte]).collect();
        names.extend((1..=255u8).filter(|byte| *byte != b'/').map(|byte| vec![b'a', byte, b'z']));
        names.extend([1, 2, 100, 200, 201, 254, 255].map(|len| vec![b'n'; len]));
        names.extend(
            ["...", "..x", "-rf", "*", "[a]", "$(true)", "`id`", "CON", "\u{202e}gnp", "é", "e\u{301}"]
                .map(Into::into),
        );
        names.extend([".x.backhaul-part", "Twin", "twin", "a\nb", "\u{1b}[2J", " ", "\t"].map(Into::into));
        names.sort();
        names.dedup();
        for name in names {
            fs::write(dir.join(OsStr::from_bytes(&name)), &name).unwrap();
            self.made += 1;
        }
    }

    fn links(&mut self) {
        let dir = self.group("links");
        let long = "x/".repeat(2_047) + "y";
        for (i, to) in ["here", "../up", "/abs", ".", "..", "nowhere/at/all", "trailing/", "self", &long]
            .iter()
            .enumerate()
        {
            match symlink(to, dir.join(format!("symlink {i}"))) {
                // XFS has room for 1,023 bytes.
                Err(error) if error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()) => continue,
                done => done.unwrap(),
            }
            self.made += 1;
        }
        symlink(OsStr::from_bytes(b"\xff\xfe\n"), dir.join("no utf-8")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        self.made += 2;
        fs::create_dir(dir.join("elsewhere")).unwrap();
        for kind in self.kinds.iter().filter(|kind| **kind != "dir") {
            let first = dir.join(format!("first {kind}"));
            if make(&first, kind) {
                fs::hard_link(&first, dir.join(format!("second {kind}"))).unwrap();
                fs::hard_link(&first, dir.join(format!("elsewhere/third {kind}"))).unwrap();
                self.made += 2;
            }
        }
        // A further name that is not saved.
        let outside = dir.join("has a name outside");
        fs::write(&outside, "one of two").unwrap();
        let _ = fs::hard_link(&outside, self.root.with_file_name("a name outside"));
        self.made += 1;
        let big = dir.join("big");
        fs::write(&big, noise(3_000_000, 3)).unwrap();
        for i in 0..100 {
            fs::hard_link(&big, dir.join(format!("elsewhere/name {i}"))).unwrap();
        }
        self.made += 1;
    }

    fn holes(&mut self) {
        let dir = self.group("holes");
        const MB: u64 = 1 << 20;
        let layouts: [Layout; 12] = [
            ("all", 10 * MB, &[]),
            ("one byte", 1, &[]),
            ("one block", 4_096, &[]),
            ("leading", 2 * MB, &[(MB, 1 << 20)]),
            ("trailing", 2 * MB, &[(0, 1 << 20)]),
            ("middle", 3 * MB, &[(0, 4_096), (2 * MB, 1 << 20)]),
            ("both ends", 3 * MB, &[(MB, 4_096)]),
            ("small", 100_000, &[(65_536, 10)]),
            ("unaligned end", 3 * MB + 1, &[(MB, 70_001)]),
            ("huge", 1 << 40, &[(1 << 39, 5_000)]),
            ("over 4 GiB", (4 << 30) + 1, &[((4 << 30) - 4_096, 4_097)]),
            ("chunk edge", 8 * MB, &[(0, 4 << 20), (6 * MB, 4_096)]),
        ];
        for (name, len, data) in layouts {
            sparse(&dir.join(name), len, data);
            self.made += 1;
        }
        let comb: Vec<(u64, usize)> = (0..300).map(|i| (i * 8_192, 4_096)).collect();
        sparse(&dir.join("comb"), 300 * 8_192, &comb);
        let punched = dir.join("punched");
        fs::write(&punched, noise(2_000_000, 4)).unwrap();
        let file = File::options().write(true).open(punched).unwrap();
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Not every file system can.
        let _ = fallocate(&file, how, 512 << 10, 1 << 20);
        let reserved = File::create(dir.join("reserved")).unwrap();
        reserved.write_all_at(b"begins", 0).unwrap();
        let _ = fallocate(&reserved, FallocateFlags::empty(), 0, 1 << 20);
        let _ = fallocate(&reserved, FallocateFlags::KEEP_SIZE, 1 << 20, 1 << 20);
        // Whose blocks two files share, where that can be.
        let (first, second) = (dir.join("shared"), dir.join("shares"));
        fs::write(&first, noise(1 << 20, 8)).unwrap();
        let (from, to) = (File::open(&first).unwrap(), File::create(&second).unwrap());
        if ioctl_ficlone(&to, &from).is_ok() {
            to.write_all_at(b"its own", 300_000).unwrap();
            self.made += 1;
        }
        let zeros = File::create(dir.join("written zeros")).unwrap();
        zeros.write_all_at(&vec![0; 1 << 20], 0).unwrap();
        self.made += 4;
    }

    fn depths(&mut self) {
        let mut dir = self.group("deep");
        for i in 0..120 {
            dir.push(format!("{i:03} {}", "d".repeat(20)));
            fs::create_dir(&dir).unwrap();
        }
        fs::write(dir.join("bottom"), "bottom").unwrap();
        let many = self.group("many");
        for i in 0..2_500 {
            fs::write(many.join(format!("{i}")), format!("{i}")).unwrap();
        }
        self.made += 2;
    }

    fn owners(&mut self) {
        let dir = self.group("owners");
        let ids = [0, 1, 65_534, 65_535, 65_536, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe];
        // A change of owner takes these away.
        for mode in [0o4755, 0o6755, 0o2711, 0o4000] {
            let path = dir.join(format!("of another {mode:o}"));
            fs::write(&path, "runs as its owner").unwrap();
            lchown(&path, Some(1_234), Some(1_235)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            self.made += 1;
        }
        for (name, attribute_of_it, value) in [
            ("capable", "security.capability", &CAPABILITY[..]),
            ("listed", "system.posix_acl_access", &acl(5)),
        ] {
            let path = dir.join(format!("of another {name}"));
            fs::write(&path, name).unwrap();
            lchown(&path, Some(1_234), Some(1_235)).unwrap();
            self.made += usize::from(attribute(&path, attribute_of_it, value));
        }
        for kind in self.kinds {
            for uid in ids {
                for gid in ids {
                    let path = dir.join(format!("{kind} {uid} {gid}"));
                    if make(&path, kind) && lchown(&path, Some(uid), Some(gid)).is_ok() {
                        self.made += 1;
                    }
                }
            }
        }
    }

    fn devices(&mut self) {
        let dir = self.group("devices");
        let numbers = [(0, 0), (0, 1), (1, 3), (255, 255), (256, 256), (4_095, 1_048_575)];
        for (kind, name) in [(FileType::CharacterDevice, "c"), (FileType::BlockDevice, "b")] {
            for (major, minor) in numbers {
                let made = special(&dir, &format!("{name} {major} {minor}"), kind, makedev(major, minor));
                self.made += usize::from(made.is_ok());
            }
        }
    }

    fn times(&mut self) {
        let dir = self.group("times");
        let seconds = [
            -2_147_483_648,
            -1,
            0,
            1,
            1_000_000_000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x1_0000_0000,
            9_000_000_000,
            // The year 2262, the last of ext4, and 9999: each file system has what it can.
            9_223_372_037,
            15_032_385_535,
            253_402_300_799,
        ];
        for kind in self.kinds {
            for tv_sec in seconds {
                for tv_nsec in [0, 1, 999_999_999] {
                    let path = dir.join(format!("{kind} {tv_sec} {tv_nsec}"));
                    if !make(&path, kind) {
                        continue;
                    }
                    let time = Timespec { tv_sec, tv_nsec };
                    let times = Timestamps { last_access: time, last_modification: time };
                    utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
                    self.made += 1;
                }
            }
        }
    }
}

/// Lets go, in the end, of what would outlive a test.
pub struct Released(pub Vec<PathBuf>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| release(path));
    }
}

/// Takes away what forbids to change or remove things below a folder.
pub fn release(root: &Path) {
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if !meta.is_dir() && !meta.is_file() {
            continue;
        }
        if let Ok(file) = File::open(&path)
            && let Ok(flags) = ioctl_getflags(&file)
        {
            let _ = ioctl_setflags(&file, flags.difference(IFlags::IMMUTABLE | IFlags::APPEND));
        }
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
}
