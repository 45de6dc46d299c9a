//! Tar: pax records say exactly what the fixed fields have no room for, and where a file has holes.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use backhaul_object::entry::{Body, Entry, Special};
use backhaul_object::source::ObjectSource;
use tar::{Builder, EntryType, Header};

use super::{Archive, ExportError, LeftOut};
use crate::dump::{Sink, dump_file, extents};
use crate::roomy::Texts;

/// Contents are padded to these.
const BLOCK: u64 = 512;

pub(super) struct Tar<'a> {
    source: &'a dyn ObjectSource,
    builder: Builder<&'a mut dyn Write>,
    /// Where the first name of each link group is.
    links: Texts,
    left_out: Vec<LeftOut>,
}

impl<'a> Tar<'a> {
    pub(super) fn new(source: &'a dyn ObjectSource, out: &'a mut dyn Write) -> Self {
        Self { source, builder: Builder::new(out), links: Texts::default(), left_out: Vec::new() }
    }

    pub(super) fn finish(mut self) -> io::Result<Vec<LeftOut>> {
        self.builder.finish()?;
        Ok(self.left_out)
    }

    /// The header with its pax records before it.
    fn head(&mut self, name: &[u8], entry: &Entry, kind: EntryType, size: Size, to: &[u8]) -> io::Result<()> {
        let metadata = &entry.metadata;
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(metadata.mode.into());
        header.set_mtime(metadata.mtime_s.try_into().unwrap_or(0));
        let (mut records, written, in_header) = size.records(name);
        header.set_size(written);
        let (whole, name) = (name, &in_header[..]);
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
            match keyword(&attribute.name) {
                Some(key) => say(&key, &attribute.value),
                None => self.left_out.push((whole.to_vec(), "the name of an attribute of it is not UTF-8")),
            }
        }
        if kind != EntryType::Link && !entry.inode_flags().is_none() {
            self.left_out.push((
                whole.to_vec(),
                "a tar archive has no inode flags and projects; all else of it is there",
            ));
        }
        header.set_cksum();
        let records = records.iter().map(|(key, value)| (key.as_str(), &value[..]));
        self.builder.append_pax_extensions(records)?;
        self.builder.append(&header, io::empty())
    }

    fn file(&mut self, name: &[u8], entry: &Entry, size: u64) -> Result<(), ExportError> {
        let failed = |why| ExportError::Content { path: name.to_vec(), why };
        let runs = extents(self.source, entry).map_err(failed)?;
        let data: u64 = runs.iter().map(|(_, len)| len).sum();
        let written = if data == size {
            self.head(name, entry, EntryType::Regular, Size::Of(size), b"")?;
            dump_file(self.source, entry, self.builder.get_mut()).map_err(failed)?;
            size
        } else {
            let map = map(&runs, size);
            let written = map.len() as u64 + data;
            self.head(name, entry, EntryType::Regular, Size::Sparse { size, written }, b"")?;
            let out = self.builder.get_mut();
            out.write_all(&map)?;
            dump_file(self.source, entry, &mut WithoutHoles(out)).map_err(failed)?;
            written
        };
        let padding = (BLOCK - written % BLOCK) % BLOCK;
        Ok(self.builder.get_mut().write_all(&[0; BLOCK as usize][..padding as usize])?)
    }
}

/// The key of an attribute, as GNU tar writes it: what ends a key there is in another form.
fn keyword(attribute: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(attribute).ok()?;
    Some(format!("SCHILY.xattr.{}", name.replace('%', "%25").replace('=', "%3D")))
}

/// What stands before a header: keys and values.
type Records = Vec<(String, Vec<u8>)>;

/// How much of a file follows its header.
#[derive(Clone, Copy)]
enum Size {
    /// All.
    Of(u64),
    /// Its data, after a map of where that goes: `GNU.sparse` 1.0.
    Sparse { size: u64, written: u64 },
}

impl Size {
    /// What the pax records say of it, how much follows, and the name in the header.
    fn records(self, name: &[u8]) -> (Records, u64, Vec<u8>) {
        match self {
            Self::Of(size) => (Vec::new(), size, name.to_vec()),
            Self::Sparse { size, written } => {
                let size = size.to_string().into_bytes();
                let said = [
                    ("major", b"1".to_vec()),
                    ("minor", b"0".to_vec()),
                    ("name", name.to_vec()),
                    ("realsize", size),
                ];
                let records = said.map(|(key, value)| (format!("GNU.sparse.{key}"), value)).to_vec();
                // Who does not know of holes finds map and data here, and not under the file's own name.
                (records, written, [b"GNUSparseFile.0/", name].concat())
            }
        }
    }
}

/// Says where data goes: how many runs, then offset and length of each, in decimal lines, filled up to whole blocks.
fn map(runs: &[(u64, u64)], size: u64) -> Vec<u8> {
    // What follows the last run is a hole up to here.
    let end = Some((size, 0)).filter(|_| runs.last().is_none_or(|(at, len)| at + len < size));
    let runs: Vec<(u64, u64)> = runs.iter().copied().chain(end).collect();
    let mut map = format!("{}\n", runs.len());
    for (at, len) in runs {
        map.push_str(&format!("{at}\n{len}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
    map
}

struct WithoutHoles<'w>(&'w mut dyn Write);

impl Sink for WithoutHoles<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn hole(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Archive for Tar<'_> {
    fn add(&mut self, name: &[u8], entry: &Entry) -> Result<(), ExportError> {
        let first = entry.link().map_or(Ok(None), |group| self.links.get(group))?;
        if let Some(first) = first {
            return Ok(self.head(name, entry, EntryType::Link, Size::Of(0), &first)?);
        }
        match &entry.body {
            Body::Directory { .. } | Body::Folded(_) => {
                let name = [name, b"/"].concat();
                self.head(&name, entry, EntryType::Directory, Size::Of(0), b"")?;
            }
            Body::File { size, .. } => self.file(name, entry, *size)?,
            Body::Symlink(to) => self.head(name, entry, EntryType::Symlink, Size::Of(0), to)?,
            Body::Special(Special::Fifo) => self.head(name, entry, EntryType::Fifo, Size::Of(0), b"")?,
            Body::Special(Special::Character(_)) => {
                self.head(name, entry, EntryType::Char, Size::Of(0), b"")?
            }
            Body::Special(Special::Block(_)) => self.head(name, entry, EntryType::Block, Size::Of(0), b"")?,
            Body::Special(Special::Socket) => {
                self.left_out.push((name.to_vec(), "a tar archive has no sockets"));
                return Ok(());
            }
        }
        if let Some(group) = entry.link() {
            self.links.set(group, name)?;
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
