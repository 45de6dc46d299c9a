//! What is there, as far as the asker may know.

use std::collections::HashMap;
use std::sync::Mutex;

use backhaul_object::ids::{ClientId, Proof};
use backhaul_object::source::Answer;
use backhaul_object::{Kind, ObjectId};
use backhaul_proto::server::Verdict;
use backhaul_proto::wire;
use backhaul_store::index::{Hit, Place};
use backhaul_store::mark::State;
use backhaul_store::vault::hide_forgotten;
use backhaul_store::{Owned, StoreError};
use bytes::Bytes;

use super::{Ending, OpenVault, lock};
use crate::error::ServerError;

fn owns(owned: &Owned, place: Place) -> bool {
    match place {
        Place::Object(ordinal) => owned.has(ordinal),
        Place::Member { bundle, member } => owned.has_member(bundle, member),
    }
}

/// What is there is the asker's to rely on from now on; nothing when it has just gone.
fn answer(vault: &OpenVault, place: Place) -> Result<Option<Answer>, StoreError> {
    let (Place::Object(ordinal) | Place::Member { bundle: ordinal, .. }) = place;
    if !vault.vault.claim(ordinal)? {
        return Ok(None);
    }
    Ok(Some(match place {
        Place::Object(_) => Answer::Have,
        Place::Member { bundle, member } => Answer::Member { bundle: vault.vault.id(bundle)?, member },
    }))
}

/// Answers prefixes: what the asker owns is there; what others own must be proven; the rest is wanted.
///
/// # Errors
/// The index cannot be read.
pub fn ask(vault: &OpenVault, owned: &Mutex<Owned>, prefixes: &[u64]) -> Result<Vec<Verdict>, StoreError> {
    let owned = lock(owned);
    let one = |prefix: &u64| {
        let hits = vault.vault.find(*prefix)?;
        let mine = hits.iter().find(|hit| owns(&owned, hit.place));
        Ok(match mine.map(|hit| Ok::<_, StoreError>((answer(vault, hit.place)?, hit.id))).transpose()? {
            Some((Some(answer), id)) => Verdict::Known(answer, id),
            None if !hits.is_empty() => Verdict::Prove,
            _ => Verdict::Want,
        })
    };
    prefixes.iter().map(one).collect()
}

/// Answers full ids with proofs of possession; what is proven is the asker's from now on.
///
/// # Errors
/// The index cannot be read.
pub fn prove(
    vault: &OpenVault,
    owned: &Mutex<Owned>,
    client: ClientId,
    proofs: &[(ObjectId, Proof)],
) -> Result<Vec<Verdict>, ServerError> {
    let mut owned = lock(owned);
    let mut verdicts = Vec::with_capacity(proofs.len());
    for (id, proof) in proofs {
        let hits = vault.vault.find(id.prefix())?;
        let fits = |hit: &&Hit| hit.id == *id && same(&hit.proof, proof);
        let mut verdict = Verdict::Want;
        for hit in hits.iter().filter(fits) {
            match hit.place {
                Place::Object(ordinal) => {
                    // Whoever has a file's bytes has its chunk. Knowing member ids proves no bundle.
                    if !vault.vault.get(ordinal).is_ok_and(|object| object.header.kind == Kind::Chunk) {
                        continue;
                    }
                    let Some(answer) = answer(vault, hit.place)? else { continue };
                    owned.add(ordinal);
                    vault.vault.note_proven(client, ordinal, None);
                    verdict = Verdict::Known(answer, *id);
                    break;
                }
                Place::Member { bundle, member } => {
                    let Some(answer) = answer(vault, hit.place)? else { continue };
                    owned.add_member(bundle, member);
                    vault.vault.note_proven(client, bundle, Some(member));
                    verdict = Verdict::Known(answer, *id);
                    break;
                }
            }
        }
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// Compares in a time that does not tell where the two differ.
fn same(a: &Proof, b: &Proof) -> bool {
    a.0.iter().zip(&b.0).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

/// A client's snapshots with their manifests.
///
/// # Errors
/// The catalog cannot be read.
pub fn list(
    vault: &OpenVault,
    client: ClientId,
    request: wire::List,
) -> Result<Vec<wire::SnapshotRow>, Ending> {
    let mut listed = vault.vault.snapshots(Some(client))?;
    let marks = vault.vault.marks()?;
    if !request.all {
        hide_forgotten(&mut listed, &marks);
    }
    let marks: HashMap<ObjectId, State> = marks.iter().map(|mark| (mark.id, mark.state)).collect();
    let mut rows = Vec::new();
    for row in listed {
        // One damaged manifest must not hide the others.
        let Ok(object) = vault.get(row.ordinal) else { continue };
        let mark = match marks.get(&row.id) {
            Some(State::Pinned) => wire::Mark::Pinned,
            Some(State::Forgotten) => wire::Mark::Forgotten,
            Some(State::Kept) | None => wire::Mark::None,
        };
        rows.push(wire::SnapshotRow {
            id: Bytes::copy_from_slice(row.id.as_bytes()),
            client: row.client_name,
            sequence: row.sequence,
            server_time: row.server_time,
            bytes_stored: row.bytes_stored,
            header: object.header.encode().into(),
            body: object.body,
            mark: mark.into(),
        });
    }
    Ok(rows)
}
