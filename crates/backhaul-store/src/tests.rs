//! For tests in this crate: objects, a vault with a snapshot, and a disk that does what a test tells it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::Packer;
use backhaul_object::{Kind, Object, Reference, Sealed};
use bytes::Bytes;

use crate::blobs::{Blobs, LocalBlobs};
use crate::error::StoreError;
use crate::session::Commit;
use crate::vault::Vault;

/// Whose snapshots these are.
pub(crate) const ANA: ClientId = ClientId([1; 16]);

/// An object of 3,000 bytes that do not compress, told apart by `seed`.
pub(crate) fn sealed(kind: Kind, references: &[&Sealed], seed: u64) -> Sealed {
    let key = VaultKey::new([7; 32]);
    let mut content = vec![0; 3_000];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
    let references = references.iter().map(|to| Reference::whole(to.header.id)).collect();
    let object = Object { kind, references, provides: vec![], payload: Bytes::from(content) };
    let packed = object.compress(&key.id_key(), &mut Packer::new(1).unwrap()).unwrap();
    packed.seal(&key.data_key(), [3; 24]).unwrap()
}

/// A new vault.
pub(crate) fn create(root: &Path) -> Vault {
    Vault::create(root, &Descriptor::managed(VaultId([9; 16])), [1; 16]).unwrap()
}

/// Ana's snapshot of that number, of some chunks.
pub(crate) fn snapshot(vault: &Vault, sequence: u8, chunks: &[Sealed]) {
    let mut session = vault.begin(SessionId([sequence; 16]), ANA);
    let node = sealed(Kind::Node, &chunks.iter().collect::<Vec<_>>(), 1_000 * u64::from(sequence));
    let snap = sealed(Kind::Snap, &[&node], 1_000 * u64::from(sequence) + 1);
    for object in chunks.iter().chain([&node]) {
        let edges = vault.resolve(&object.header.references).unwrap();
        session.append(object, &edges).unwrap();
    }
    let edges = vault.resolve(&snap.header.references).unwrap();
    let sequence = u64::from(sequence);
    let commit = Commit { client_name: "ana", sequence, server_time: 1, signature: vec![5; 70] };
    session.commit(&snap, &edges, commit).unwrap();
}

/// A vault with a snapshot of some chunks in one pack, and the name of that.
pub(crate) fn filled(root: &Path, chunks: &[Sealed]) -> String {
    let vault = create(root);
    snapshot(&vault, 1, chunks);
    let packs = vault.shared.blobs.list("packs").unwrap();
    let bytes = |name: &&String| vault.shared.blobs.len(name).unwrap();
    packs.iter().max_by_key(bytes).unwrap().clone()
}

/// What happens before a read of so many bytes from an offset of a blob.
pub(crate) type BeforeRead = dyn Fn(&str, u64, usize) -> Result<(), StoreError> + Send + Sync;
/// What happens before a file takes a blob's name.
pub(crate) type BeforeAdopt = dyn Fn(&str) + Send + Sync;

/// A disk on which something happens before it reads or takes over a file.
pub(crate) struct Tampered {
    pub disk: LocalBlobs,
    pub before_read: Box<BeforeRead>,
    pub before_adopt: Box<BeforeAdopt>,
}

impl Tampered {
    /// Opens a vault on it.
    pub fn open(root: &Path, before_read: Box<BeforeRead>, before_adopt: Box<BeforeAdopt>) -> Vault {
        let mut vault = Vault::open(root).unwrap();
        let tampered = Self { disk: LocalBlobs::new(root), before_read, before_adopt };
        Arc::get_mut(&mut vault.shared).unwrap().blobs = Arc::new(tampered);
        vault
    }
}

impl Blobs for Tampered {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.disk.put(name, bytes)
    }

    fn adopt(&self, file: &Path, name: &str) -> Result<(), StoreError> {
        (self.before_adopt)(name);
        self.disk.adopt(file, name)
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        (self.before_read)(name, offset, len)?;
        self.disk.read(name, offset, len)
    }

    fn read_into(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<usize, StoreError> {
        (self.before_read)(name, offset, out.len())?;
        self.disk.read_into(name, offset, out)
    }

    fn keep_as(&self, name: &str, copy: &str) -> Result<bool, StoreError> {
        self.disk.keep_as(name, copy)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.disk.remove(name)
    }

    fn len(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.disk.len(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.disk.list(prefix)
    }
}
