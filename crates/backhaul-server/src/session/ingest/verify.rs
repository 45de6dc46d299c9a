//! What is made sure of an object before it is let in.

use std::sync::Mutex;

use backhaul_object::seal::{Packer, Unpacker};
use backhaul_object::snapshot::Snapshot;
use backhaul_object::{Compressed, FormatError, Kind, Object, Sealed, bundle, flist, node};
use backhaul_proto::end;
use backhaul_store::Owned;

use super::{Checked, CommitRequest, Commitment, Item};
use crate::keyring::random;
use crate::session::room::Share;
use crate::session::{Ending, OpenVault, patches};

/// What an object is checked for.
enum Goal {
    Object(Share),
    Commit(Box<CommitRequest>),
}

/// Decompresses, re-hashes, makes sure that it can be read back, and seals.
pub(super) fn check(
    (vault, owned): (&OpenVault, &Mutex<Owned>),
    item: Item,
    unpacker: &mut Unpacker,
) -> Checked {
    let bad = |error: &dyn std::fmt::Display| Checked::Bad(Ending::new(end::DATA, error.to_string()));
    let (object, goal) = match item {
        Item::Object(object, share) => (object, Goal::Object(share)),
        Item::Commit(mut request) => {
            let header = request.snapshot.header.clone();
            let snapshot =
                std::mem::replace(&mut request.snapshot, Compressed { header, body: Default::default() });
            (snapshot, Goal::Commit(request))
        }
    };
    let (object, goal) = match (object.header.kind, goal) {
        (Kind::Patch, Goal::Object(share)) => {
            let stored = patches::receive(vault, owned, object, unpacker);
            return match stored.and_then(|object| seal(vault, object)) {
                Ok(sealed) => Checked::Object { sealed, healed: Vec::new(), share },
                Err(ending) => Checked::Bad(ending),
            };
        }
        (_, goal) => (object, goal),
    };
    let opened = match object.open(&vault.id_key, unpacker) {
        Ok(opened) => opened,
        Err(error) => return bad(&format!("object {}: {error}", object.header.id)),
    };
    if let Err(error) = readable(&opened, matches!(goal, Goal::Commit(_))) {
        return bad(&format!("object {}: {error}", object.header.id));
    }
    let sealed = match seal(vault, object) {
        Ok(sealed) => sealed,
        Err(ending) => return Checked::Bad(ending),
    };
    match goal {
        Goal::Object(share) => match healed(vault, &opened) {
            Ok(healed) => {
                unpacker.recycle(opened);
                Checked::Object { sealed, healed, share }
            }
            Err(ending) => Checked::Bad(ending),
        },
        Goal::Commit(request) => match Snapshot::decode(&opened) {
            Ok(snapshot) => Checked::Commit(Box::new(Commitment { request: *request, sealed, snapshot })),
            Err(error) => bad(&error),
        },
    }
}

/// Members of a bundle that were objects of their own, as patches, and were lost: they take their numbers again, for older snapshots
/// refer to these.
fn healed(vault: &OpenVault, bundle: &Object) -> Result<Vec<Sealed>, Ending> {
    let lost = vault.vault.lost_among(&bundle.provides)?;
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let bad = |error: FormatError| Ending::new(end::STORAGE, error.to_string());
    let members = bundle::members(bundle).map_err(bad)?;
    let mut packer = Packer::new(patches::STORED).map_err(bad)?;
    let mut healed = Vec::with_capacity(lost.len());
    for n in lost {
        let (id, proof) = bundle.provides[n];
        let payload = members[n].clone().unwrap_or_default();
        let chunk = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload };
        healed.push(seal(vault, chunk.compress_as(id, proof, &mut packer).map_err(bad)?)?);
    }
    Ok(healed)
}

fn seal(vault: &OpenVault, object: Compressed) -> Result<Sealed, Ending> {
    let nonce = random().map_err(|error| Ending::new(end::STORAGE, error.to_string()))?;
    object.seal(&vault.data_key, nonce).map_err(|error| Ending::new(end::DATA, error.to_string()))
}

fn readable(object: &Object, is_commit: bool) -> Result<(), String> {
    let decoded = match object.kind {
        Kind::Node => node::decode(object).map(drop),
        Kind::Flist => flist::decode(object).map(drop),
        Kind::Chunk => Ok(()),
        Kind::Bundle => whole_bundle(object),
        Kind::Snap if is_commit => Ok(()),
        kind => return Err(format!("a {kind:?} has no place here")),
    };
    match (decoded, is_commit, object.kind) {
        (Ok(()), true, kind) if kind != Kind::Snap => Err("a commit must be a snapshot".to_owned()),
        (result, ..) => result.map_err(|error| error.to_string()),
    }
}

/// Every member must be there: a bundle is named by its members' ids, so one without contents would pass for
/// possession of all, and would promise contents that nobody has.
fn whole_bundle(object: &Object) -> Result<(), FormatError> {
    match bundle::members(object)?.iter().all(Option::is_some) {
        true => Ok(()),
        false => Err(FormatError::Invalid("a bundle with members left out")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use backhaul_object::bundle::BundleBuilder;
    use backhaul_object::codec::Write;
    use backhaul_object::keys::VaultKey;
    use backhaul_object::seal::identify_content;
    use bytes::Bytes;

    use super::*;

    /// Whoever knows the ids of a bundle's members can name it, and must not own it by that.
    #[test]
    fn a_bundle_without_its_contents_is_refused_though_its_id_is_right() {
        let key = VaultKey::new([1; 32]).id_key();
        let mut builder = BundleBuilder::default();
        for content in [&b"one"[..], b"two"] {
            let (id, proof) = identify_content(&key, content);
            builder.push(id, proof, content);
        }
        let whole = builder.finish();
        assert_eq!(readable(&whole, false), Ok(()));
        let mut payload = Vec::new();
        payload.put_varint(0);
        payload.put_varint(4);
        payload.extend_from_slice(b"two");
        let part = Object { payload: Bytes::from(payload), ..whole.clone() };
        let sent = part.clone().compress(&key, &mut Packer::new(3).unwrap()).unwrap();
        assert_eq!(sent.header.id, whole.identify(&key).0);
        assert!(sent.open(&key, &mut Unpacker::new().unwrap()).is_ok(), "the id alone does not tell");
        assert!(readable(&part, false).is_err());
    }

    #[test]
    fn snapshots_come_by_commit_and_nothing_else_does() {
        let object = |kind| Object { kind, references: vec![], provides: vec![], payload: Bytes::new() };
        assert!(readable(&object(Kind::Snap), false).is_err());
        assert!(readable(&object(Kind::Snap), true).is_ok());
        assert!(readable(&object(Kind::Chunk), true).is_err());
        for reserved in [Kind::Patch, Kind::Blob, Kind::Attest] {
            assert!(readable(&object(reserved), false).is_err());
        }
    }
}
