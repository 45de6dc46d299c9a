//! Trees of files: made, and compared in everything that a backup must keep.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, IFlags, Mode, SeekFrom, XattrFlags, ioctl_getflags, seek};

/// Bytes that do not compress, the same for the same seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A tree with one of everything: it lies one level down, so that nobody else touches its parent.
pub fn everything(dir: &Path) -> PathBuf {
    let root = dir.join("tree");
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("deep/er/est")).unwrap();
    fs::create_dir_all(at("empty folder")).unwrap();
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("tiny"), b"tiny").unwrap();
    fs::write(at("huge"), noise(9_000_000, 1)).unwrap();
    fs::write(at("zeroes"), vec![0; 6_000_000]).unwrap();
    sparse(&at("sparse"), 9_000_000, &[(0, 4_096), (5 << 20, 70_000)]);
    sparse(&at("deep/all hole"), 3_000_000, &[]);
    for i in 0..400u64 {
        fs::write(at(&format!("deep/er/{i:03}.txt")), noise(100 + i as usize * 30, i + 2)).unwrap();
    }
    fs::write(at("deep/twin"), noise(100 + 7 * 30, 9)).unwrap();
    fs::hard_link(at("huge"), at("deep/huge-too")).unwrap();
    symlink("../tiny", at("deep/link")).unwrap();
    symlink("/nowhere", at("dangling")).unwrap();
    special(&root, "pipe", FileType::Fifo, 0).unwrap();
    special(&root, "socket", FileType::Socket, 0).unwrap();
    for name in ["pipe", "socket", "dangling"] {
        fs::hard_link(at(name), at(&format!("deep/{name}-too"))).unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"not-\xff\xfe-utf8")), b"strange").unwrap();
    fs::write(at("with\nnewline"), b"line").unwrap();
    attribute(&at("huge"), "user.comment", &noise(3_000, 5));
    attribute(&at("deep"), "user.empty", b"");
    attribute(&at("deep"), "system.posix_acl_default", &acl(6));
    attribute(&at("deep/twin"), "system.posix_acl_access", &acl(4));
    attribute(&at("deep/er/000.txt"), "user.of-a-file-that-may-not-be-written", b"\x00\xff");
    // For root only.
    attribute(&at("tiny"), "security.capability", &CAPABILITY);
    for name in ["dangling", "pipe", "deep", "empty"] {
        attribute(&at(name), "trusted.backhaul", name.as_bytes());
    }
    fs::set_permissions(at("deep/er/000.txt"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(at("pipe"), fs::Permissions::from_mode(0o622)).unwrap();
    fs::set_permissions(at("tiny"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(at("deep/er/est"), fs::Permissions::from_mode(0o1777)).unwrap();
    root
}

/// Makes a file of holes, but for noise of these lengths at these places.
pub fn sparse(path: &Path, len: u64, data: &[(u64, usize)]) {
    let file = fs::File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (at, bytes) in data {
        file.write_all_at(&noise(*bytes, *at + 1), *at).unwrap();
    }
}

/// Where a file has data, in the system's own words.
pub fn extents(path: &Path) -> Vec<(u64, u64)> {
    let file = fs::File::open(path).unwrap();
    let (mut at, mut all) = (0, Vec::new());
    while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(data)).unwrap();
        all.push((data, at));
    }
    all
}

/// Sets an extended attribute, where the file system and the user's rights allow it.
pub fn attribute(path: &Path, name: impl AsRef<OsStr>, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name.as_ref(), value, XattrFlags::empty()).is_ok()
}

/// An access list in the kernel's form (acl(5), `posix_acl_xattr.h`): one more user, with these rights.
pub fn acl(rights: u16) -> Vec<u8> {
    const NOBODY_IN_PARTICULAR: u32 = u32::MAX;
    let entries = [(0x01, 7, NOBODY_IN_PARTICULAR), (0x02, rights, 1_234), (0x04, 5, NOBODY_IN_PARTICULAR)];
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        entries.into_iter().chain([(0x10, 7, NOBODY_IN_PARTICULAR), (0x20, 0, NOBODY_IN_PARTICULAR)])
    {
        let (tag, rights): (u16, u16) = (tag, rights);
        out.extend([&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    out
}

/// `CAP_NET_BIND_SERVICE`, permitted and effective (`struct vfs_cap_data`, revision 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// All extended attributes, a line each.
fn attributes(path: &Path) -> String {
    let mut names = vec![0u8; 65_536];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut all: Vec<String> = names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0u8; 65_536];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            format!("{}={:x?}", name.escape_ascii(), &value[..len])
        })
        .collect();
    all.sort();
    all.join(" ")
}

/// Makes a special file; only root may make devices.
pub fn special(dir: &Path, name: &str, kind: FileType, device: u64) -> std::io::Result<()> {
    Ok(rustix::fs::mknodat(CWD, dir.join(name), kind, Mode::RUSR | Mode::WUSR, device)?)
}

/// All files below a directory, sorted.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.filter_map(Result::ok) {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

/// The names in a folder, in order.
pub fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// How closely a tree is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regard {
    /// Everything.
    All,
    /// Where a file has holes, and inode flags, do not matter.
    ButForHoles,
}

/// Everything about a tree that must come back, in a form that shows differences.
pub fn describe(root: &Path, regard: Regard) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    // The top folder is one of them.
    let mut entries = vec![root.to_path_buf()];
    loop {
        for path in std::mem::take(&mut entries) {
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_path_buf();
            let kind = if meta.is_dir() {
                if path != root {
                    open.push(path.clone());
                }
                "dir".to_owned()
            } else {
                // Names that a file has elsewhere are not of this tree.
                let linked = match inodes.get(&meta.ino()) {
                    Some(first) => format!("{first:?}"),
                    None => String::new(),
                };
                inodes.entry(meta.ino()).or_insert_with(|| name.clone());
                let what = match FileType::from_raw_mode(meta.mode()) {
                    FileType::Symlink => format!("link to {:?}", fs::read_link(&path).unwrap()),
                    FileType::RegularFile => {
                        let extents = match regard {
                            Regard::All => extents(&path),
                            Regard::ButForHoles => vec![(0, meta.len())],
                        };
                        let sum = checksum(&path, &extents);
                        format!("file {} {sum} data at {extents:?}", meta.len())
                    }
                    other => format!("{other:?} {:x}", meta.rdev()),
                };
                format!("{what} {linked}")
            };
            let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
            let time = (meta.mtime(), meta.mtime_nsec());
            let flags = if regard == Regard::All { flags(&path, &meta) } else { String::new() };
            let attributes = attributes(&path);
            all.insert(name, format!("{kind} {mode:o} {uid}:{gid} {time:?} {flags} {attributes}"));
        }
        let Some(dir) = open.pop() else { return all };
        entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
    }
}

/// Of what is in parts of a file.
fn checksum(path: &Path, extents: &[(u64, u64)]) -> blake3::Hash {
    let file = fs::File::open(path).unwrap();
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![]);
    for (mut at, end) in extents.iter().copied() {
        while at < end {
            buffer.resize((end - at).min(1 << 20) as usize, 0);
            file.read_exact_at(&mut buffer, at).unwrap();
            hasher.update(&buffer);
            at += buffer.len() as u64;
        }
    }
    hasher.finalize()
}

/// Inode flags, where there are any.
fn flags(path: &Path, meta: &fs::Metadata) -> String {
    if !meta.is_file() && !meta.is_dir() {
        return String::new();
    }
    let flags = fs::File::open(path).map(|file| ioctl_getflags(&file));
    let flags = flags.ok().and_then(Result::ok).unwrap_or(IFlags::empty());
    // With `FS_NOCOMP_FL`, `FS_DAX_FL` and `FS_CASEFOLD_FL`, which have no names there.
    let set = IFlags::all() | IFlags::from_bits_retain(0x0400 | 0x0200_0000 | 0x4000_0000);
    format!("{:x}", flags.intersection(set).bits())
}

/// Asserts that two trees are equal in names, kinds, contents, holes, modes, owners, times, hard links, flags and
/// extended attributes, their top folders too.
pub fn assert_equal(a: &Path, b: &Path) {
    assert_alike(&describe(a, Regard::All), &describe(b, Regard::All));
}

/// The same where the top folders are not of the snapshot.
pub fn assert_equal_below(a: &Path, b: &Path) {
    let [a, b] = [a, b].map(|root| {
        let mut all = describe(root, Regard::All);
        all.remove(Path::new(""));
        all
    });
    assert_alike(&a, &b);
}

fn assert_alike(a: &BTreeMap<PathBuf, String>, b: &BTreeMap<PathBuf, String>) {
    for (name, what) in a {
        assert_eq!(b.get(name), Some(what), "{}", name.display());
    }
    for name in b.keys() {
        assert!(a.contains_key(name), "{} is too much", name.display());
    }
}
