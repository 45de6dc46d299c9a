//! Tar: pax records say exactly what the fixed fields have no room for.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use backhaul_object::entry::{Body, Entry, Special};
use backhaul_object::source::ObjectSource;
use tar::{Builder, EntryType, Header};

use super::{Archive, ExportError, LeftOut};
use crate::dump::dump_file;

/// Contents are padded to these.
const BLOCK: u64 = 512;

pub(super) struct Tar<'a> {
    source: &'a dyn ObjectSource,
    builder: Builder<&'a mut dyn Write>,
    /// Where the first name of each link group is.
    links: HashMap<u64, Vec<u8>>,
    left_out: Vec<LeftOut>,
}

impl<'a> Tar<'a> {
    pub(super) fn new(source: &'a dyn ObjectSource, out: &'a mut dyn Write) -> Self {
        Self { source, builder: Builder::new(out), links: HashMap::new(), left_out: Vec::new() }
    }

    pub(super) fn finish(mut self) -> io::Result<Vec<LeftOut>> {
        self.builder.finish()?;
        Ok(self.left_out)
    }

    /// The header with its pax records before it.
    fn head(&mut self, name: &[u8], entry: &Entry, kind: EntryType, size: u64, to: &[u8]) -> io::Result<()> {
        let metadata = &entry.metadata;
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(metadata.mode.into());
        header.set_size(size);
        header.set_mtime(metadata.mtime_s.try_into().unwrap_or(0));
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let mut say = |key: &str, value: &[u8]| records.push((key.to_owned(), value.to_vec()));
        for (key, id) in [("uid", metadata.uid), ("gid", metadata.gid)] {
            // Seven octal digits.
            if id >= 1 << 21 {
                say(key, id.to_string().as_bytes());
            }
        }
        header.set_uid(metadata.uid.into());
        header.set_gid(metadata.gid.into());
        if metadata.mtime_s < 0 || metadata.mtime_ns != 0 {
            say("mtime", seconds(metadata.mtime_s, metadata.mtime_ns).as_bytes());
        }
        let path = |bytes: &[u8]| Path::new(OsStr::from_bytes(bytes)).to_owned();
        if header.set_path(path(name)).is_err() || name.contains(&b'\\') {
            say("path", name);
            header.set_path("long")?;
        }
        if !to.is_empty() && (header.set_link_name_literal(to).is_err() || to.len() > 100) {
            say("linkpath", to);
        }
        if let Body::Special(Special::Character(device) | Special::Block(device)) = entry.body {
            header.set_device_major(device.major)?;
            header.set_device_minor(device.minor)?;
        }
        // A further name has what its first has.
        let attributes = if kind == EntryType::Link { Vec::new() } else { entry.attributes() };
        for attribute in attributes {
            let key = format!("SCHILY.xattr.{}", String::from_utf8_lossy(&attribute.name));
            say(&key, &attribute.value);
        }
        header.set_cksum();
        let records = records.iter().map(|(key, value)| (key.as_str(), &value[..]));
        self.builder.append_pax_extensions(records)?;
        self.builder.append(&header, io::empty())
    }

    fn file(&mut self, name: &[u8], entry: &Entry, size: u64) -> Result<(), ExportError> {
        self.head(name, entry, EntryType::Regular, size, b"")?;
        let out = self.builder.get_mut();
        dump_file(self.source, entry, out)
            .map_err(|why| ExportError::Content { path: name.to_vec(), why })?;
        let padding = (BLOCK - size % BLOCK) % BLOCK;
        Ok(out.write_all(&[0; BLOCK as usize][..padding as usize])?)
    }
}

impl Archive for Tar<'_> {
    fn add(&mut self, name: &[u8], entry: &Entry) -> Result<(), ExportError> {
        if let Some(first) = entry.link().and_then(|group| self.links.get(&group)).cloned() {
            return Ok(self.head(name, entry, EntryType::Link, 0, &first)?);
        }
        match &entry.body {
            Body::Directory { .. } | Body::Folded(_) => {
                let name = [name, b"/"].concat();
                self.head(&name, entry, EntryType::Directory, 0, b"")?;
            }
            Body::File { size, .. } => self.file(name, entry, *size)?,
            Body::Symlink(to) => self.head(name, entry, EntryType::Symlink, 0, to)?,
            Body::Special(Special::Fifo) => self.head(name, entry, EntryType::Fifo, 0, b"")?,
            Body::Special(Special::Character(_)) => self.head(name, entry, EntryType::Char, 0, b"")?,
            Body::Special(Special::Block(_)) => self.head(name, entry, EntryType::Block, 0, b"")?,
            Body::Special(Special::Socket) => {
                self.left_out.push((name.to_vec(), "a tar archive has no sockets"));
                return Ok(());
            }
        }
        if let Some(group) = entry.link() {
            self.links.insert(group, name.to_vec());
        }
        Ok(())
    }
}

/// Decimal seconds, also before 1970.
fn seconds(s: i64, ns: u32) -> String {
    let (total, ns) = (i128::from(s) * 1_000_000_000 + i128::from(ns), 1_000_000_000);
    let (sign, total) = if total < 0 { ("-", -total) } else { ("", total) };
    format!("{sign}{}.{:09}", total / ns, total % ns)
}
