//! Cases of what files have beside content: extended attributes, access lists, inode flags; and the top folder, which has what any has.

use super::*;

/// Of version 2: somebody may bind low ports.
pub(super) const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Cases {
    pub(super) fn attributes(&mut self, privileged: bool) {
        let dir = self.group("attributes");
        let values = [
            ("empty", vec![]),
            ("binary", vec![0, 1, 255, 0]),
            ("text", b"x".to_vec()),
            ("3000 bytes", noise(3_000, 1)),
            // Where there is room for it, as on XFS.
            ("60000 bytes", noise(60_000, 2)),
        ];
        for kind in self.kinds {
            for (what, value) in &values {
                let path = dir.join(format!("{kind} {what}"));
                if !make(&path, kind) {
                    continue;
                }
                let mut set = attribute(&path, format!("user.{what}"), value);
                set |= attribute(&path, "user.per%cent=\u{e9}", value);
                set |= attribute(
                    &path,
                    OsStr::from_bytes(b"user.\xff\xfe no text\n"),
                    b"of a name that is none",
                );
                set |= privileged && attribute(&path, OsStr::from_bytes(b"trusted.\xc3("), b"");
                set |= privileged && attribute(&path, "trusted.backhaul", value);
                set |= privileged && attribute(&path, "security.backhaul", value);
                if privileged && *what == "binary" {
                    // Of no module that is there: then they are bytes like others.
                    for name in ["selinux", "ima", "evm"] {
                        attribute(&path, format!("security.{name}"), b"system_u:object_r:tmp_t:s0\0");
                    }
                }
                self.made += usize::from(set);
            }
            for rights in 0..8 {
                let path = dir.join(format!("{kind} acl {rights}"));
                if *kind == "symlink" || !make(&path, kind) {
                    continue;
                }
                let mut set = attribute(&path, "system.posix_acl_access", &acl(rights));
                set |= *kind == "dir" && attribute(&path, "system.posix_acl_default", &acl(rights));
                self.made += usize::from(set);
            }
        }
        // The most that Linux takes, where there is room for it.
        let path = dir.join("largest");
        fs::write(&path, "largest").unwrap();
        self.made += usize::from(attribute(&path, "user.largest", &noise(65_536, 7)));
        let path = dir.join("many");
        fs::write(&path, "many").unwrap();
        self.made += (0..40).filter(|i| attribute(&path, format!("user.n{i}"), b"value")).count().min(1);
        if privileged {
            let path = dir.join("capable");
            fs::write(&path, "c").unwrap();
            self.made += usize::from(attribute(&path, "security.capability", &CAPABILITY));
            // Version 3: of a namespace whose root is user 1000.
            let path = dir.join("capable in a namespace");
            fs::write(&path, "c").unwrap();
            let mut of_namespace = [&CAPABILITY[..], &1_000u32.to_le_bytes()].concat();
            of_namespace[3] = 3;
            self.made += usize::from(attribute(&path, "security.capability", &of_namespace));
            self.made += usize::from(attribute(&dir.join("many"), "security.backhaul", b"anything"));
        }
    }

    pub(super) fn flags(&mut self, privileged: bool) {
        let dir = self.group("flags");
        let mut flags = vec![("s", IFlags::SYNC), ("A", IFlags::NOATIME), ("D", IFlags::DIRSYNC)];
        // Of btrfs, "m" being `FS_NOCOMP_FL`: a file takes "C" while it is empty.
        flags.extend([("c", IFlags::COMPRESSED), ("C", IFlags::NOCOW)]);
        flags.push(("m", IFlags::from_bits_retain(0x400)));
        if privileged {
            flags.extend([("i", IFlags::IMMUTABLE), ("a", IFlags::APPEND)]);
            flags.push(("ia", IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NOATIME));
        }
        for kind in ["file", "dir"] {
            for (name, flags) in &flags {
                let path = dir.join(format!("{kind} {name}"));
                make(&path, kind);
                if kind == "file" {
                    fs::write(&path, "").unwrap();
                }
                let file = File::open(&path).unwrap();
                let mut writer = (kind == "file").then(|| File::options().append(true).open(&path).unwrap());
                let set = ioctl_getflags(&file).and_then(|old| ioctl_setflags(&file, old | *flags));
                if let Some(writer) = &mut writer
                    && !flags.contains(IFlags::IMMUTABLE)
                {
                    writer.write_all(&noise(300_000, 6)).unwrap();
                }
                self.made += usize::from(set.is_ok());
            }
        }
    }
}

/// The top folder has what any has: its owner, mode and time come with this, too.
pub(super) fn top(root: &Path, privileged: bool) -> usize {
    let mut set = usize::from(attribute(root, "user.of the top", b"kept"));
    set += usize::from(attribute(root, "system.posix_acl_default", &acl(5)));
    if privileged {
        lchown(root, Some(1_234), Some(1_235)).unwrap();
        set += usize::from(attribute(root, "trusted.top", b"kept"));
    }
    fs::set_permissions(root, fs::Permissions::from_mode(if privileged { 0o3751 } else { 0o755 })).unwrap();
    let time = Timespec { tv_sec: -77, tv_nsec: 77 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, root, &times, AtFlags::empty()).unwrap();
    set
}
