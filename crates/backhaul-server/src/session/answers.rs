//! What is there, as far as the asker may know.

use std::collections::HashMap;
use std::sync::Mutex;

use backhaul_object::ids::{ClientId, Proof};
use backhaul_object::source::Answer;
use backhaul_object::{Header, Kind, ObjectId};
use backhaul_proto::server::Verdict;
use backhaul_proto::wire;
use backhaul_store::index::{Ordinal, Place};
use backhaul_store::mark::State;
use backhaul_store::vault::hide_forgotten;
use backhaul_store::{Owned, StoreError};
use bytes::Bytes;

use super::{Ending, OpenVault, lock};
use crate::error::ServerError;

fn owns(owned: &Owned, place: Place) -> bool {
    match place {
        Place::Object(ordinal) => owned.has(ordinal),
        Place::Member { bundle, member, .. } => owned.has_member(bundle, member),
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
        Place::Member { bundle_id, member, .. } => Answer::Member { bundle: bundle_id, member },
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
    let mut headers = Headers { vault, last: None };
    let mut verdicts = Vec::with_capacity(proofs.len());
    for (id, proof) in proofs {
        let hits = vault.vault.find(id.prefix())?;
        let mut verdict = Verdict::Want;
        for hit in hits.iter().filter(|hit| hit.id == id.short()) {
            let known = headers.proof_of(hit.place).filter(|(full, known)| full == id && same(known, proof));
            if known.is_none() {
                continue;
            }
            let Some(answer) = answer(vault, hit.place)? else { continue };
            match hit.place {
                Place::Object(ordinal) => {
                    owned.add(ordinal);
                    vault.vault.note_proven(client, ordinal, None);
                }
                Place::Member { bundle, member, .. } => {
                    owned.add_member(bundle, member);
                    vault.vault.note_proven(client, bundle, Some(member));
                }
            }
            verdict = Verdict::Known(answer, id.short());
            break;
        }
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

/// Headers of objects as they are at rest. Whoever asks for members asks for those of a bundle one after the other.
struct Headers<'v> {
    vault: &'v OpenVault,
    last: Option<(Ordinal, Header)>,
}

impl Headers<'_> {
    /// The whole id, and the proof of possession, of what can be proven: whoever has a file's bytes has its chunk, or the
    /// member that holds it. Knowing member ids proves no bundle. None, too, for what cannot be read: it is wanted.
    fn proof_of(&mut self, place: Place) -> Option<(ObjectId, Proof)> {
        let (Place::Object(ordinal) | Place::Member { bundle: ordinal, .. }) = place;
        if self.last.as_ref().is_none_or(|(last, _)| *last != ordinal) {
            self.last = Some((ordinal, self.vault.vault.header(ordinal).ok()?));
        }
        let (_, header) = self.last.as_ref()?;
        match place {
            Place::Object(_) => {
                matches!(header.kind, Kind::Chunk | Kind::Patch).then_some((header.id, header.proof))
            }
            Place::Member { member, .. } => header.provides.get(usize::from(member)).copied(),
        }
    }
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
