//! The parity file of a pack (docs/format.md, "Parity"): its layout, and what it says about each block.
//!
//! The table of checksums says which blocks are damaged, so that all of the parity goes into mending them. It is there
//! twice, before and after the parity, because without it the parity is worth nothing.

use backhaul_object::codec::{FormatError, Reader};
use backhaul_object::ids::PackId;

use crate::pack::Class;

/// Version this crate writes.
pub const SIDECAR_VERSION: u8 = 1;
/// Bytes of a block: what a disk loses at a time.
pub const BLOCK: usize = 4_096;
/// Most blocks of a pack in one stripe.
const STRIPE_BLOCKS: u64 = 1_024;
/// Most parity blocks in one stripe.
const PARITY_MAX: u64 = 1_024;
/// Offsets in a pack are 32 bits.
const PACK_MAX: u64 = 1 << 32;
const HEAD_LEN: usize = 52;
const SUM_LEN: usize = 16;
const TRAILER_LEN: usize = 8;

const HEAD_MAGIC: &[u8; 4] = b"BHRS";
const TRAILER_MAGIC: &[u8; 4] = b"BHRE";

/// The blob name of a pack's sidecar.
pub(crate) fn sidecar_blob(pack: &PackId) -> String {
    let hex = pack.to_string();
    format!("parity/{}/{hex}", &hex[..2])
}

/// How a pack's blocks are dealt to stripes: block `n` is in stripe `n mod stripes`, so that neighbours on the disk are
/// in different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the pack.
    pub pack_len: u64,
    /// Parity blocks of each stripe.
    pub parity: u64,
}

impl Layout {
    /// The layout for a pack: of data 1 parity block for 32, of metadata 1 for 8, which costs little and saves more.
    pub fn of(class: Class, pack_len: u64) -> Self {
        let data = Self { pack_len, parity: 0 }.data();
        let parity = match class {
            Class::Data => data.div_ceil(32).max(2),
            Class::Meta => data.div_ceil(8).max(4),
        };
        Self { pack_len, parity }
    }

    /// Blocks of the pack; the last may be short.
    pub fn blocks(&self) -> u64 {
        self.pack_len.div_ceil(BLOCK as u64)
    }

    /// Stripes.
    pub fn stripes(&self) -> u64 {
        self.blocks().div_ceil(STRIPE_BLOCKS).max(1)
    }

    /// Blocks of the pack in a stripe; those beyond its end count as zeroes.
    pub fn data(&self) -> u64 {
        self.blocks().div_ceil(self.stripes())
    }

    /// Bytes of block `number`.
    pub fn block_len(&self, number: u64) -> usize {
        let rest = self.pack_len.saturating_sub(number * BLOCK as u64);
        rest.min(BLOCK as u64) as usize
    }

    fn parity_blocks(&self) -> u64 {
        self.stripes() * self.parity
    }

    fn table_len(&self) -> usize {
        HEAD_LEN + 4 * (self.blocks() + self.parity_blocks()) as usize + SUM_LEN
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> usize {
        2 * self.table_len() + self.parity_blocks() as usize * BLOCK + TRAILER_LEN
    }

    fn check(&self) -> Result<(), FormatError> {
        let within = |what, value, limit| match value <= limit {
            true => Ok(()),
            false => Err(FormatError::TooLarge { what, value, limit }),
        };
        within("pack length", self.pack_len, PACK_MAX)?;
        within("parity blocks", self.parity, PARITY_MAX)?;
        match self.pack_len > 0 && self.parity > 0 {
            true => Ok(()),
            false => Err(FormatError::Invalid("parity of nothing")),
        }
    }
}

/// What a sidecar says besides the parity itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Of which pack.
    pub pack: PackId,
    /// How it is laid out.
    pub layout: Layout,
    /// CRC-32 of each block of the pack, then of each parity block.
    pub sums: Vec<u32>,
}

impl Table {
    /// Canonical bytes, ending in a checksum.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.layout.table_len());
        out.extend_from_slice(HEAD_MAGIC);
        out.extend_from_slice(&[SIDECAR_VERSION, 0, 0, 0]);
        out.extend_from_slice(self.pack.as_bytes());
        out.extend_from_slice(&self.layout.pack_len.to_le_bytes());
        out.extend_from_slice(&(self.layout.parity as u32).to_le_bytes());
        for sum in &self.sums {
            out.extend_from_slice(&sum.to_le_bytes());
        }
        let sum = blake3::hash(&out);
        out.extend_from_slice(&sum.as_bytes()[..SUM_LEN]);
        out
    }

    /// Reads the table at the start of `bytes`.
    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(bytes);
        if r.take(4, "parity magic")? != HEAD_MAGIC {
            return Err(FormatError::Invalid("not a parity file"));
        }
        let version = r.u8("parity version")?;
        if version != SIDECAR_VERSION {
            return Err(FormatError::Unknown { what: "parity version", value: u64::from(version) });
        }
        r.take(3, "reserved")?;
        let pack = PackId(r.array("pack")?);
        let layout = Layout { pack_len: r.u64("pack length")?, parity: u64::from(r.u32("parity blocks")?) };
        layout.check()?;
        let raw = r.take(layout.table_len() - HEAD_LEN - SUM_LEN, "block checksums")?;
        let sums = raw.as_chunks::<4>().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        let sum = r.take(SUM_LEN, "parity checksum")?;
        if blake3::hash(&bytes[..layout.table_len() - SUM_LEN]).as_bytes()[..SUM_LEN] != *sum {
            return Err(FormatError::Mismatch("parity checksum"));
        }
        Ok(Self { pack, layout, sums })
    }
}

/// A whole sidecar.
pub(crate) fn encode(table: &Table, parity: &[u8]) -> Vec<u8> {
    let raw = table.encode();
    let mut out = Vec::with_capacity(table.layout.file_len());
    out.extend_from_slice(&raw);
    out.extend_from_slice(parity);
    out.extend_from_slice(&raw);
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    out.extend_from_slice(TRAILER_MAGIC);
    out
}

/// A sidecar that was read, perhaps damaged itself.
pub struct Sidecar {
    table: Table,
    bytes: Vec<u8>,
}

impl Sidecar {
    /// Understands a sidecar by either of its tables.
    ///
    /// # Errors
    /// Neither can be read.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, FormatError> {
        let table = match Table::decode(&bytes) {
            Ok(table) => table,
            Err(error) => Self::last_table(&bytes).ok_or(error)?,
        };
        Ok(Self { table, bytes })
    }

    fn last_table(bytes: &[u8]) -> Option<Table> {
        let (rest, trailer) = bytes.split_last_chunk::<TRAILER_LEN>()?;
        let (len, magic) = trailer.split_first_chunk::<4>()?;
        let start = rest.len().checked_sub(u32::from_le_bytes(*len) as usize)?;
        Table::decode(&rest[start..]).ok().filter(|_| magic == TRAILER_MAGIC)
    }

    /// What it says.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// True when it is byte for byte as it was written.
    pub fn is_whole(&self) -> bool {
        let layout = &self.table.layout;
        let start = layout.table_len();
        let end = start + layout.parity_blocks() as usize * BLOCK;
        self.bytes.len() == layout.file_len()
            && (0..layout.parity_blocks()).all(|number| self.parity(number).is_some())
            && encode(&self.table, &self.bytes[start..end]) == self.bytes
    }

    /// Parity block `number`, if it is undamaged: block `n` is of stripe `n mod stripes`.
    pub(crate) fn parity(&self, number: u64) -> Option<&[u8]> {
        let start = self.table.layout.table_len() + number as usize * BLOCK;
        let block = self.bytes.get(start..start + BLOCK)?;
        let sum = self.table.sums.get((self.table.layout.blocks() + number) as usize)?;
        (crc32fast::hash(block) == *sum).then_some(block)
    }
}
