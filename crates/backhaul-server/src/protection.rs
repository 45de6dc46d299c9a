//! How old what is saved of a client's files is. A stream that was saved protects none of them.

use std::collections::HashMap;

use backhaul_object::Compressed;
use backhaul_object::ids::ClientId;
use backhaul_object::keys::{IdKey, VaultKey};
use backhaul_object::seal::Unpacker;
use backhaul_object::snapshot::{Origin, Snapshot};
use backhaul_store::catalog::{Catalog, SnapshotRow};
use backhaul_store::manifest::Manifest;
use backhaul_store::pack;
use backhaul_store::vault::hide_forgotten;

use crate::error::ServerError;
use crate::home::ServerHome;

/// When the newest snapshot of each client's files was made, seconds since 1970. One whose origin cannot be read counts:
/// an alert that is wrong about all clients at once helps nobody, and `check` names it.
pub(crate) fn newest(
    mut rows: Vec<SnapshotRow>,
    origin: impl Fn(&SnapshotRow) -> Option<Origin>,
) -> HashMap<ClientId, u64> {
    rows.sort_by_key(|row| std::cmp::Reverse(row.server_time));
    let mut newest = HashMap::new();
    for row in rows {
        if !newest.contains_key(&row.client) && origin(&row) != Some(Origin::Stream) {
            newest.insert(row.client, row.server_time);
        }
    }
    newest
}

/// The same, of a vault that some process may have open.
///
/// # Errors
/// There is no catalog or no key.
pub fn newest_at_rest(home: &ServerHome) -> Result<HashMap<ClientId, u64>, ServerError> {
    let catalog = Catalog::look(&home.vault_dir())?;
    let mut rows = catalog.snapshots()?;
    hide_forgotten(&mut rows, &catalog.marks()?);
    let key = home.vault_key()?;
    Ok(newest(rows, |row| origin_at_rest(home, &key, row)))
}

fn origin_at_rest(home: &ServerHome, key: &VaultKey, row: &SnapshotRow) -> Option<Origin> {
    let name = Manifest::name_of(row.client, row.sequence);
    let manifest = Manifest::decode(&std::fs::read(home.vault_dir().join(name)).ok()?).ok()?;
    let (_, sealed) = pack::decode_record(&manifest.record).ok()?;
    origin(&sealed.unseal(&key.data_key()).ok()?, &key.id_key())
}

/// Of a manifest.
pub(crate) fn origin(manifest: &Compressed, key: &IdKey) -> Option<Origin> {
    let object = manifest.open(key, &mut Unpacker::new().ok()?).ok()?;
    Some(Snapshot::decode(&object).ok()?.origin())
}

#[cfg(test)]
mod tests {
    use backhaul_object::ObjectId;
    use backhaul_store::Ordinal;

    use super::*;

    #[test]
    fn the_newest_that_is_of_files_counts_and_what_cannot_be_read_does() {
        let row = |client: u8, sequence: u64| SnapshotRow {
            id: ObjectId([client; 32]),
            ordinal: Ordinal(0),
            client: ClientId([client; 16]),
            client_name: String::new(),
            sequence,
            server_time: sequence * 100,
            bytes_stored: 0,
            objects_new: 0,
        };
        let rows = vec![row(1, 1), row(1, 2), row(1, 3), row(1, 4), row(2, 1), row(3, 1), row(3, 2)];
        let origin = |row: &SnapshotRow| match (row.client.0[0], row.sequence) {
            (1, 3 | 4) | (2, _) => Some(Origin::Stream),
            (3, 2) => None,
            _ => Some(Origin::Files),
        };
        let found = newest(rows, origin);
        assert_eq!(found.get(&ClientId([1; 16])), Some(&200));
        assert_eq!(found.get(&ClientId([2; 16])), None);
        assert_eq!(found.get(&ClientId([3; 16])), Some(&200));
    }
}
