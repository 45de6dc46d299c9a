//! The manifest file: the commit point of a snapshot, with what only the server knows about it.

use backhaul_object::codec::{FormatError, Write};
use backhaul_object::ids::{ClientId, ObjectId};
use backhaul_object::small_file::{SmallFile, summed};

const KIND: SmallFile = SmallFile { what: "manifest", magic: b"BHSN", version: 1 };
const RECORD_MAX: usize = 16 << 20;
/// Largest manifest file that is read.
pub(crate) const MANIFEST_MAX: usize = 32 << 20;

/// Where a manifest lies.
pub(crate) fn manifest_name(client: ClientId, sequence: u64) -> String {
    format!("snaps/{client}/{sequence:010}.snap")
}

/// Where the copy of a manifest lies.
pub(crate) fn copy_name(name: &str) -> String {
    name.replacen("snaps/", "copies/", 1)
}

/// A committed snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The snapshot object.
    pub id: ObjectId,
    /// Whose.
    pub client: ClientId,
    /// The client's name at that time.
    pub client_name: String,
    /// 1, 2, 3, … per client.
    pub sequence: u64,
    /// Seconds since 1970 by the server's clock: what retention goes by.
    pub server_time: u64,
    /// Bytes that this run added to the vault.
    pub bytes_stored: u64,
    /// Objects that this run added.
    pub objects_new: u64,
    /// The client's signature over `id`.
    pub signature: Vec<u8>,
    /// The sealed snapshot object as a pack record: it survives the loss of its pack.
    pub record: Vec<u8>,
}

impl Manifest {
    /// The blob name: `snaps/<client>/<sequence>.snap`.
    pub fn name(&self) -> String {
        manifest_name(self.client, self.sequence)
    }

    /// The name of a client's manifest with a number, in a vault's directory.
    pub fn name_of(client: ClientId, sequence: u64) -> String {
        manifest_name(client, sequence)
    }

    /// Canonical bytes, ending in a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = KIND.begin();
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.client.as_bytes());
        out.put_bytes(self.client_name.as_bytes());
        for value in [self.sequence, self.server_time, self.bytes_stored, self.objects_new] {
            out.put_varint(value);
        }
        out.put_bytes(&self.signature);
        out.put_bytes(&self.record);
        summed(out)
    }

    /// Reads a manifest file.
    ///
    /// # Errors
    /// Truncated, changed, or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = KIND.open(bytes)?;
        let id = ObjectId(r.array("snapshot id")?);
        let client = ClientId(r.array("client")?);
        let name = r.bytes("client name", 255)?;
        let client_name =
            std::str::from_utf8(name).map_err(|_| FormatError::Invalid("client name"))?.to_owned();
        let sequence = r.varint("sequence")?;
        let server_time = r.varint("server time")?;
        let bytes_stored = r.varint("bytes stored")?;
        let objects_new = r.varint("objects new")?;
        let signature = r.bytes("signature", 1_024)?.to_vec();
        let record = r.bytes("record", RECORD_MAX)?.to_vec();
        r.finish()?;
        Ok(Self {
            id,
            client,
            client_name,
            sequence,
            server_time,
            bytes_stored,
            objects_new,
            signature,
            record,
        })
    }
}
