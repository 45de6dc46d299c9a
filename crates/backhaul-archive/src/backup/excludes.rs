//! What is left out of a backup, and what is so without being asked.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::look::Look;
use crate::patterns::{Case, Kind, PatternError, Patterns};

/// What programs can make again, or would not want back. Whoever names such a folder itself as a path has it saved.
pub const DEFAULTS: [&str; 8] = [
    "/home/*/.cache/",
    "/root/.cache/",
    "/home/*/.local/share/Trash/",
    "/root/.local/share/Trash/",
    "/var/cache/apt/archives/*.deb",
    "/swapfile",
    "/swap.img",
    "/lost+found/",
];
/// Marks a directory of things that can be made again (<https://bford.info/cachedir/>).
const CACHE_TAG: &CStr = c"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// What somebody wants left out. The default leaves out [`DEFAULTS`] and what is marked as a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// Patterns as in gitignore(5), the last that fits decides.
    pub patterns: Vec<(String, Case)>,
    /// Directories with something of one of these names in them are kept, and of what is in them only that.
    pub if_present: Vec<String>,
    /// As `if_present`, for `CACHEDIR.TAG` with its signature.
    pub caches: bool,
    /// Larger files, in bytes.
    pub larger_than: Option<u64>,
    /// What has the `nodump` flag.
    pub nodump: bool,
    /// [`DEFAULTS`], before all other patterns.
    pub defaults: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        let (patterns, if_present, larger_than) = (Vec::new(), Vec::new(), None);
        Self { patterns, if_present, larger_than, caches: true, nodump: true, defaults: true }
    }
}

/// Those wishes, ready to be held against what is found.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    patterns: Patterns,
    if_present: Vec<std::ffi::CString>,
    caches: bool,
    larger_than: Option<u64>,
    nodump: bool,
}

/// Why something is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Pattern,
    Larger,
    NoDump,
    Marked,
    Kernel,
    Unmounted,
}

impl Reason {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Pattern => "by pattern",
            Self::Larger => "larger than asked for",
            Self::NoDump => "marked nodump",
            Self::Marked => "in folders marked so (--exclude-caches, --exclude-if-present)",
            Self::Kernel => "file systems of the kernel",
            Self::Unmounted => "not mounted now",
        }
    }
}

impl Excludes {
    /// Compiles them.
    ///
    /// # Errors
    /// A pattern cannot be read.
    pub fn new(wishes: &Wishes) -> Result<Self, PatternError> {
        let defaults = if wishes.defaults { &DEFAULTS[..] } else { &[] };
        let defaults = defaults.iter().map(|text| (*text, Case::Sensitive));
        let own = wishes.patterns.iter().map(|(text, case)| (text.as_str(), *case));
        let wrong = |name: &String| PatternError { text: name.clone(), why: "no name has this".to_owned() };
        let name = |name: &String| {
            backhaul_object::entry::check_name(name.as_bytes()).map_err(|_| wrong(name))?;
            std::ffi::CString::new(name.as_bytes()).map_err(|_| wrong(name))
        };
        Ok(Self {
            patterns: Patterns::new(defaults.chain(own))?,
            if_present: wishes.if_present.iter().map(name).collect::<Result<_, _>>()?,
            caches: wishes.caches,
            larger_than: wishes.larger_than,
            nodump: wishes.nodump,
        })
    }

    /// Whether something is left out.
    pub(super) fn reason(&self, path: &[u8], look: &Look) -> Option<Reason> {
        let is_file = look.kind() == FileType::RegularFile;
        let kind = if look.kind() == FileType::Directory { Kind::Directory } else { Kind::Other };
        if self.nodump && look.is_nodump() {
            Some(Reason::NoDump)
        } else if is_file && self.larger_than.is_some_and(|limit| look.size() > limit) {
            Some(Reason::Larger)
        } else {
            (self.patterns.verdict(path, kind) == Some(true)).then_some(Reason::Pattern)
        }
    }

    /// The one name in a directory that is kept, when it marks all others as not worth it.
    pub(super) fn mark(&self, dir: &OwnedFd) -> Option<&CStr> {
        let there =
            |name: &&std::ffi::CString| rustix::fs::statat(dir, &***name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let mark = self.if_present.iter().find(there).map(|name| &**name);
        mark.or_else(|| (self.caches && is_cache(dir)).then_some(CACHE_TAG))
    }
}

/// File systems that show what the kernel knows, and hold nothing (`linux/magic.h`): procfs, sysfs, devpts, cgroup,
/// cgroup2, debugfs, tracefs, securityfs, bpf, pstore, configfs, efivarfs, binfmt_misc, fusectl, mqueue, selinuxfs, nsfs.
const OF_THE_KERNEL: [u64; 17] = [
    0x9fa0,
    0x6265_6572,
    0x1cd1,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x6165_676c,
    0x6265_6570,
    0xde5e_81e4,
    0x4249_4e4d,
    0x6573_5543,
    0x1980_0202,
    0xf97c_ff8c,
    0x6e73_6673,
];

/// Where something is mounted once somebody opens it (`AUTOFS_SUPER_MAGIC`).
const AUTOFS: u64 = 0x0187;

/// Whether a directory waits for something to be mounted there: by a handle that only names it, and opens nothing.
pub(super) fn is_unmounted(dir: &impl AsFd, name: &CStr) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let named = rustix::fs::openat(dir, name, flags, Mode::empty());
    named.and_then(rustix::fs::fstatfs).is_ok_and(|stat| stat.f_type as u64 & 0xffff_ffff == AUTOFS)
}

/// Whether a directory is on one of those.
pub(super) fn is_of_the_kernel(dir: &impl AsFd) -> bool {
    // Of 32 bits, whatever the type has.
    rustix::fs::fstatfs(dir).is_ok_and(|stat| OF_THE_KERNEL.contains(&(stat.f_type as u64 & 0xffff_ffff)))
}

fn is_cache(dir: &impl AsFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat(dir, CACHE_TAG, flags, Mode::empty()) else { return false };
    let mut found = [0; CACHE_SIGNATURE.len()];
    File::from(fd).read_exact(&mut found).is_ok() && found == *CACHE_SIGNATURE
}

/// The patterns in a file: one a line, `#` begins a comment.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn read_patterns(path: &Path) -> std::io::Result<Vec<String>> {
    Ok(std::fs::read_to_string(path)?.lines().map(str::to_owned).collect())
}

/// Paths listed in a file: one a line, or ended by NUL if there is one anywhere.
///
/// # Errors
/// It cannot be read.
pub fn read_paths(mut from: impl Read) -> std::io::Result<Vec<std::path::PathBuf>> {
    let mut text = Vec::new();
    from.read_to_end(&mut text)?;
    let end = if text.contains(&0) { 0 } else { b'\n' };
    let paths = text.split(|byte| *byte == end).filter(|path| !path.is_empty());
    Ok(paths.map(|path| OsStr::from_bytes(path).into()).collect())
}
