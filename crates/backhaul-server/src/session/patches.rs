//! Patches: chunks that are stored as a difference to others (docs/format.md, "Patches"). Whoever reads gets the chunk: outside
//! of the vault a patch exists only on its way in.

use std::sync::Mutex;

use backhaul_object::patch::{rebuild, substance};
use backhaul_object::seal::{Packer, Unpacker};
use backhaul_object::{Compressed, FormatError, Object, ObjectId, Reference};
use backhaul_proto::end;
use backhaul_store::{Owned, StoreError};
use bytes::Bytes;

use super::bases::Base;
use super::{Ending, OpenVault, lock};

/// zstd level of a chunk that is on its way to a reader.
const TRAVELLING: i32 = 1;
/// zstd level of a chunk that is stored though it came in another form: as an agent would have it.
pub(super) const STORED: i32 = 3;

const NOT_WHOLE: FormatError = FormatError::Invalid("a base that is not whole");

/// Why a patch cannot be made into its chunk.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A base cannot be had.
    Base(StoreError),
    /// The patch is not one, or makes something else.
    Patch(FormatError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Base(error)
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Self::Patch(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base(error) => write!(f, "it is stored as a difference to another object: {error}"),
            Self::Patch(error) => write!(f, "{error}"),
        }
    }
}

impl OpenVault {
    /// Makes the chunk of a patch. Its bases are whole: nothing is built on what is itself built.
    pub(crate) fn rebuild(&self, patch: &Compressed, unpacker: &mut Unpacker) -> Result<Object, Failure> {
        rebuild(patch, &self.id_key, unpacker, &mut |base, unpacker| match self.base(&base.id, unpacker)?.0 {
            Base::Whole(object) => Ok(substance(&object, base)?),
            Base::Patch(_) | Base::Unfit => Err(NOT_WHOLE.into()),
        })
    }

    /// The chunk of a patch as it is sent.
    pub(crate) fn travelling(&self, patch: &Compressed) -> Result<Compressed, Failure> {
        let chunk = self.rebuild(patch, &mut Unpacker::new()?)?;
        Ok(chunk.compress_as(patch.header.id, patch.header.proof, &mut Packer::new(TRAVELLING)?)?)
    }
}

/// Makes sure that a patch that has come from a client makes what it says, of what is the client's. What it returns is to be
/// stored: the chunk instead, where a patch would not do.
pub(super) fn receive(
    vault: &OpenVault,
    owned: &Mutex<Owned>,
    patch: Compressed,
    unpacker: &mut Unpacker,
) -> Result<Compressed, Ending> {
    let id = patch.header.id;
    // First: what is made of somebody else's bytes would tell whether a guess about these is right.
    let edges = vault.vault.resolve(&patch.header.references);
    let edges = match edges {
        Err(StoreError::MissingReference(base)) => {
            return Err(stale(&id, &format!("its base {base} is not there")));
        }
        edges => edges?,
    };
    if !edges.iter().all(|edge| lock(owned).has(edge.to)) {
        return Err(stale(&id, "a base of it is not this client's"));
    }
    let mut is_direct = !vault.vault.is_lost(&id)?;
    let fetch = &mut |base: &Reference, unpacker: &mut Unpacker| -> Result<Bytes, Failure> {
        match vault.base(&base.id, unpacker)?.0 {
            Base::Whole(object) => Ok(substance(&object, base)?),
            Base::Patch(stored) => {
                is_direct = false;
                Ok(substance(&vault.rebuild(&stored, unpacker)?, base)?)
            }
            Base::Unfit => Err(NOT_WHOLE.into()),
        }
    };
    let made = rebuild(&patch, &vault.id_key, unpacker, fetch);
    match made {
        Ok(_) if is_direct => Ok(patch),
        Ok(chunk) => {
            let packed = Packer::new(STORED)
                .and_then(|mut packer| chunk.compress_as(id, patch.header.proof, &mut packer));
            packed.map_err(|error| Ending::new(end::STORAGE, error.to_string()))
        }
        Err(Failure::Patch(error @ FormatError::Mismatch(_))) => Err(stale(&id, &error.to_string())),
        Err(Failure::Patch(error)) => Err(Ending::new(end::DATA, format!("object {id}: {error}"))),
        // Sent whole, it does not need what cannot be read; a check will name that.
        Err(Failure::Base(
            error @ (StoreError::Damaged { .. }
            | StoreError::NotFound(_)
            | StoreError::MissingReference(_)
            | StoreError::Io { .. }),
        )) => {
            tracing::warn!("a base of object {id} cannot be read: {error}; run `backhaul check --read-data`");
            Err(stale(&id, &format!("a base of it cannot be read: {error}")))
        }
        Err(Failure::Base(error)) => Err(error.into()),
    }
}

/// What the client knows of its bases is wrong: it forgets that, and sends everything whole.
fn stale(id: &ObjectId, why: &str) -> Ending {
    Ending::new(end::STALE, format!("object {id} is no good as a difference: {why}; a full read is due"))
}
