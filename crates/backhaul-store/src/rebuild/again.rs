//! What was reclaimed and is needed all the same: once an index was wrong when it was asked. While its records are still in
//! packs it comes back.

use std::collections::{HashMap, HashSet};

use backhaul_object::ShortId;

use super::{Found, blob_of};
use crate::around;
use crate::bits::Bits;
use crate::blobs::Blobs;
use crate::catalog::PackRow;
use crate::error::StoreError;
use crate::index::Ordinal;
use crate::pack;
use crate::reclaim::Verifier;

fn id_of(blobs: &dyn Blobs, packs: &[PackRow], record: &Found) -> Option<ShortId> {
    let blob = blob_of(packs, record);
    let bytes = blobs.read(&blob, u64::from(record.offset), pack::ID_END).ok()?;
    pack::decode_record_id(&bytes).map(|id| id.short())
}

/// Which of the numbers that are gone have a record in a pack that a manifest reaches, and that is under no other number.
/// While a manifest or a pack of metadata is damaged, none: nobody knows what is needed.
pub(super) fn needed_again(
    blobs: &dyn Blobs,
    packs: &[PackRow],
    found: &[Found],
    gone: &Bits,
) -> Result<Vec<Ordinal>, StoreError> {
    let mut ids: HashMap<ShortId, Vec<Ordinal>> = HashMap::new();
    for record in found.iter().filter(|record| gone.has(record.ordinal)) {
        if let Some(id) = id_of(blobs, packs, record) {
            ids.entry(id).or_default().push(record.ordinal);
        }
    }
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut pace = |_| Ok(());
    let asked: HashSet<ShortId> = ids.keys().copied().collect();
    let needed = Verifier::new(blobs, &mut pace).and_then(|verifier| verifier.needed(asked, &mut pace));
    let mut needed = match needed {
        Err(StoreError::Unsure { .. }) => return Ok(Vec::new()),
        Err(error) if around::is_medium(&error) => return Ok(Vec::new()),
        needed => needed?,
    };
    if !needed.is_empty() {
        for record in found.iter().filter(|record| !gone.has(record.ordinal)) {
            if let Some(id) = id_of(blobs, packs, record) {
                needed.remove(&id);
            }
        }
    }
    // One number of each: below everything that refers to it, whenever that came.
    Ok(needed.iter().filter_map(|id| ids.get(id)?.iter().min().copied()).collect())
}
