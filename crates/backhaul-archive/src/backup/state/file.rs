//! State files: a header, then blocks with a checksum. What does not check out ends the file, silently.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use backhaul_object::breach::Breach;
use backhaul_object::codec::Reader;
use backhaul_object::ids::VaultId;

use super::codec::{self, Item};
use super::{Record, journal::BlockWriter};

/// Magic, version, vault, generation.
pub(super) const HEADER_LEN: usize = 40;
const MAGIC: &[u8; 8] = b"BHSTATE\x03";
/// Largest block that is read.
const BLOCK_MAX: usize = 16 << 20;

pub(super) fn header(vault: &VaultId, generation: &[u8; 16]) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(MAGIC);
    out[8..24].copy_from_slice(vault.as_bytes());
    if !Breach::BelievedState.is_on() {
        out[24..].copy_from_slice(generation);
    }
    out
}

/// Directories come before what follows them: `/` sorts before every other byte.
pub(super) fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

/// The items of one file.
struct Items {
    file: Option<BufReader<File>>,
    block: Vec<u8>,
    at: usize,
}

impl Items {
    /// A file that is missing, foreign or of another generation has no items.
    fn open(path: &Path, header: &[u8; HEADER_LEN]) -> Self {
        let open = || {
            let mut file = BufReader::with_capacity(1 << 20, File::open(path).ok()?);
            let mut found = [0; HEADER_LEN];
            file.read_exact(&mut found).ok()?;
            (found == *header).then_some(file)
        };
        Self { file: open(), block: Vec::new(), at: 0 }
    }

    fn next_block(&mut self) -> Option<()> {
        let file = self.file.as_mut()?;
        let mut head = [0; 8];
        file.read_exact(&mut head).ok()?;
        let mut r = Reader::new(&head);
        let (len, crc) = (r.u32("length").ok()? as usize, r.u32("checksum").ok()?);
        if len > BLOCK_MAX {
            return None;
        }
        self.block.resize(len, 0);
        file.read_exact(&mut self.block).ok()?;
        self.at = 0;
        (crc32fast::hash(&self.block) == crc).then_some(())
    }
}

impl Iterator for Items {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        while self.at == self.block.len() {
            if self.next_block().is_none() {
                (self.file, self.at) = (None, self.block.len());
                return None;
            }
        }
        let mut r = Reader::new(&self.block[self.at..]);
        let item = codec::decode(&mut r).ok();
        self.at = self.block.len() - r.rest().len();
        item
    }
}

/// Prefixes of the nodes that a file lists.
pub(super) fn nodes(path: &Path, header: &[u8; HEADER_LEN]) -> impl Iterator<Item = u64> + use<> {
    Items::open(path, header).filter_map(|item| match item {
        Item::Node(prefix) => Some(prefix),
        Item::File(_) => None,
    })
}

/// True when a file has anything.
pub(super) fn has_any(path: &Path, header: &[u8; HEADER_LEN]) -> bool {
    Items::open(path, header).next().is_some()
}

/// One file's records, read along with the walk.
struct Layer {
    items: Items,
    next: Option<Record>,
}

impl Layer {
    fn open(path: &Path, header: &[u8; HEADER_LEN]) -> Self {
        let mut layer = Self { items: Items::open(path, header), next: None };
        layer.advance();
        layer
    }

    fn advance(&mut self) -> Option<Record> {
        let next = self.items.find_map(|item| match item {
            Item::File(record) => Some(record),
            Item::Node(_) => None,
        });
        std::mem::replace(&mut self.next, next)
    }
}

/// The records of several files, the first having precedence; looked up in walk order only.
#[derive(Default)]
pub(crate) struct Records {
    layers: Vec<Layer>,
}

impl Records {
    pub(super) fn open(paths: &[&Path], header: &[u8; HEADER_LEN]) -> Self {
        Self { layers: paths.iter().map(|path| Layer::open(path, header)).collect() }
    }

    /// The record of a path that comes after all paths asked for before.
    pub(crate) fn find(&mut self, path: &[u8]) -> Option<Record> {
        let mut found = None;
        for layer in &mut self.layers {
            while let Some(next) = &layer.next {
                match walk_order(&next.path, path) {
                    Ordering::Less => drop(layer.advance()),
                    Ordering::Equal => {
                        let record = layer.advance();
                        found = found.or(record);
                    }
                    Ordering::Greater => break,
                }
            }
        }
        found
    }

    fn next(&mut self) -> Option<Record> {
        let paths = self.layers.iter().filter_map(|layer| layer.next.as_ref().map(|r| &r.path));
        let first = paths.min_by(|a, b| walk_order(a, b))?.clone();
        self.find(&first)
    }
}

/// Writes what several files say together into one.
pub(super) fn merge(from: &[&Path], to: &Path, header: &[u8; HEADER_LEN]) -> io::Result<()> {
    let mut out = BlockWriter::create(to, header)?;
    for prefix in from.iter().flat_map(|path| nodes(path, header)) {
        out.push(|block| codec::encode_node(block, prefix))?;
    }
    let mut records = Records::open(from, header);
    while let Some(record) = records.next() {
        out.push(|block| codec::encode_file(block, &record))?;
    }
    out.finish()
}
