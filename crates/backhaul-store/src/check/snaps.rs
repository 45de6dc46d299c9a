//! Snapshot objects that are lost. No client sends one again, but its manifest has it: with leave to mend it is written anew
//! from that, under its number, as everything is that was lost and comes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backhaul_object::Sealed;
use backhaul_object::ids::{ClientId, ObjectId, SessionId};

use super::{Damage, Part, Report};
use crate::catalog::{Lost, SnapshotRow};
use crate::error::StoreError;
use crate::index::{Edge, Ordinal};
use crate::manifest::{Manifest, manifest_name};
use crate::pack;
use crate::session::WriteSession;
use crate::vault::{Pair, Vault};

/// Opens an object by the key of its vault, which the store has not; an error says why it is not what its id says.
pub type Verify = dyn Fn(&Sealed) -> Result<(), String> + Send + Sync;

/// What came of those that were lost.
#[derive(Default)]
pub(super) struct Snapshots {
    /// They are there.
    pub healed: BTreeSet<Ordinal>,
    /// What is to be said of those that are still lost.
    pub left: HashMap<Ordinal, String>,
}

/// Said where no manifest counts.
const UNBELIEVED: &str = "neither its manifest nor the copy of that can be believed";
/// How it was made good.
pub(super) const FROM_MANIFEST: &str = "written anew from its manifest";

impl Vault {
    /// Who has the key says whether what a manifest holds is the object that it is said to be: without that none is written
    /// anew. Who says so first is asked.
    pub fn verify_with(&self, verify: Box<Verify>) {
        let _ = self.shared.verify.set(verify);
    }

    /// Writes lost snapshot objects anew if that may be done, and takes them off the list of the lost.
    pub(super) fn heal_snapshots(
        &self,
        may_mend: bool,
        lost: &mut Vec<Lost>,
        report: &mut Report,
    ) -> Result<Snapshots, StoreError> {
        let mut found = Snapshots::default();
        if lost.is_empty() {
            return Ok(found);
        }
        let rows = self.state().catalog.snapshots()?.into_iter();
        let rows: HashMap<Ordinal, SnapshotRow> = rows.map(|row| (row.ordinal, row)).collect();
        let mut sessions: BTreeMap<ClientId, WriteSession> = BTreeMap::new();
        for item in lost.iter() {
            let Some(row) = rows.get(&item.ordinal) else { continue };
            let why = match self.held(row)? {
                Ok((sealed, edges)) if may_mend => {
                    let session = sessions.entry(row.client);
                    let session = session.or_insert_with(|| self.begin(session_of(&row.id), row.client));
                    session.append(&sealed, &edges)?;
                    found.healed.insert(item.ordinal);
                    continue;
                }
                Ok(_) => {
                    "it is lost; its manifest has it, and `backhaul check --repair` writes it anew".to_owned()
                }
                Err(why) => format!("it is lost, and no backup brings a snapshot back: {why}"),
            };
            found.left.insert(item.ordinal, why);
        }
        sessions.into_values().try_for_each(WriteSession::finish)?;
        for item in lost.extract_if(.., |item| found.healed.contains(&item.ordinal)) {
            let what = Part::Object(item.id);
            let named = report.damage.iter().position(|damage| damage.what == what).unwrap_or_else(|| {
                report.damage.push(Damage::new(what, "it was lost, and its manifest has it"));
                report.damage.len() - 1
            });
            report.damage[named].mended = Some(FROM_MANIFEST.to_owned());
        }
        Ok(found)
    }

    /// A lost snapshot object as its manifest, or the copy of that, has it, and what it refers to.
    fn held(&self, row: &SnapshotRow) -> Result<Result<(Sealed, Vec<Edge>), String>, StoreError> {
        let (pair, edges, names) = {
            let state = self.state();
            let edges = state.index.edges(row.ordinal)?;
            if edges.iter().any(|edge| state.fence.gone().has(edge.to)) {
                return Ok(Err("what it referred to is not there either".to_owned()));
            }
            let names = edges.iter().map(|edge| state.index.short(edge.to)).collect::<Result<Vec<_>, _>>()?;
            (self.pair(&state, &manifest_name(row.client, row.sequence)), edges, names)
        };
        let mut why = UNBELIEVED.to_owned();
        for manifest in pair.believed().filter(|manifest| manifest.id == row.id) {
            match self.verified(manifest) {
                Ok(sealed)
                    if sealed.header.references.iter().map(|to| to.id.short()).eq(names.iter().copied()) =>
                {
                    return Ok(Ok((sealed, edges)));
                }
                Ok(_) => why = "the index does not know what it referred to".to_owned(),
                Err(other) => why = other,
            }
        }
        Ok(Err(why))
    }

    /// The snapshot object in a manifest.
    fn verified(&self, manifest: &Manifest) -> Result<Sealed, String> {
        let (_, sealed) = pack::decode_record(&manifest.record).map_err(|error| error.to_string())?;
        let verify = self.shared.verify.get();
        let verify =
            verify.ok_or("its manifest has it, and only who has the key can tell whether as it was")?;
        verify(&sealed).map_err(|why| format!("what its manifest holds is not what it was: {why}"))?;
        Ok(sealed)
    }

    /// Writes the object of a snapshot anew that the catalog does not have: the index was made without it.
    pub(super) fn heal_stranger(&self, pair: &Pair) -> Result<Result<(), String>, StoreError> {
        if let Some(why) = pair.dispute() {
            return Ok(Err(why));
        }
        let Some(manifest) = pair.believed().next() else { return Ok(Err(UNBELIEVED.to_owned())) };
        let sealed = match self.verified(manifest) {
            Ok(sealed) => sealed,
            Err(why) => return Ok(Err(why)),
        };
        let mut session = self.begin(session_of(&manifest.id), manifest.client);
        let edges = match self.resolve(&sealed.header.references) {
            Err(StoreError::MissingReference(id)) => {
                return Ok(Err(format!("object {id}, to which it refers, is not there either")));
            }
            edges => edges?,
        };
        session.append(&sealed, &edges)?;
        session.finish().map(Ok)
    }
}

/// A session that nobody else has.
fn session_of(snapshot: &ObjectId) -> SessionId {
    let mut session = [0; 16];
    session.copy_from_slice(&snapshot.as_bytes()[..16]);
    SessionId(session)
}
