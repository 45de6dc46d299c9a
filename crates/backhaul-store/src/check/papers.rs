//! The small files: manifests and their copies, the descriptor and its copy, the catalog.

use std::collections::BTreeMap;

use super::snaps::FROM_MANIFEST;
use super::{Damage, Mending, Part, Report, Request};
use crate::catalog::SnapshotRow;
use crate::error::StoreError;
use crate::manifest::{Manifest, copy_name, manifest_name};
use crate::vault::manifests::{NO_OBJECT, Stranger};
use crate::vault::{self, DESCRIPTOR_COPY, DESCRIPTOR_FILE, Pair, Vault};

impl Vault {
    pub(super) fn check_papers(&self, request: &Request, report: &mut Report) -> Result<(), StoreError> {
        self.check_manifests(request, report)?;
        self.check_descriptor(request, report)?;
        self.check_marks(request, report)?;
        if let Err(error) = self.state().catalog.verify() {
            let why = match error {
                StoreError::Damaged { why, .. } => why,
                other => other.to_string(),
            };
            report.damage.push(Damage::new(Part::File("catalog.sqlite".to_owned()), why));
        }
        Ok(())
    }

    fn check_manifests(&self, request: &Request, report: &mut Report) -> Result<(), StoreError> {
        let mut known = self.rows_by_name()?;
        for name in
            self.manifest_names()?.into_iter().filter(|name| !known.contains_key(name)).collect::<Vec<_>>()
        {
            // Made since the list of snapshots was.
            match self.rows_by_name()?.remove(&name) {
                Some(row) => drop(known.insert(name, row)),
                None => self.check_stranger(request, &name, report)?,
            }
        }
        for (name, row) in known {
            self.check_manifest(request, &name, &row, report)?;
        }
        Ok(())
    }

    /// The catalog's snapshots, by the names of their manifests.
    fn rows_by_name(&self) -> Result<BTreeMap<String, SnapshotRow>, StoreError> {
        let rows = self.state().catalog.snapshots()?.into_iter();
        Ok(rows.map(|row| (manifest_name(row.client, row.sequence), row)).collect())
    }

    /// A manifest that the catalog does not have: it was lost and its copy is there, or it is not to be believed.
    fn check_stranger(&self, request: &Request, name: &str, report: &mut Report) -> Result<(), StoreError> {
        let may_mend = request.mending == Mending::Mend;
        let Stranger { pair, is_lost, is_superfluous } = self.stranger(name)?;
        let named = |why: &str| Damage::new(Part::File(name.to_owned()), why);
        // Be the manifest whole or not, there was such a snapshot.
        if is_lost {
            let mut damage = named(NO_OBJECT);
            let is_index_right = report.damage.iter().all(|damage| damage.what != Part::Index);
            if may_mend && is_index_right {
                match self.heal_stranger(&pair)? {
                    Ok(()) => damage.mended = Some(FROM_MANIFEST.to_owned()),
                    Err(why) => damage.why = format!("{NO_OBJECT}, and no backup brings it back: {why}"),
                }
            }
            let is_healed = damage.mended.is_some();
            report.damage.push(damage);
            if let (Ok(manifest), true) = (&pair.manifest, is_healed) {
                return self.adopt_manifest(manifest);
            }
        }
        let mut damage = match &pair.manifest {
            Ok(_) if is_lost => return Ok(()),
            Ok(_) => named("the catalog does not have it; opening the vault enters it"),
            Err(why) => named(why),
        };
        match pair {
            Pair { manifest: Err(_), copy: Some(Ok(good)), .. } if may_mend => {
                self.replace(name, &good.encode(), request.now)?;
                self.adopt_manifest(&good)?;
                damage.mended = Some("written anew from its copy".to_owned());
            }
            _ if is_superfluous && may_mend => {
                for file in [copy_name(name), name.to_owned()] {
                    self.put_away(&file, request.now)?;
                }
                damage.mended = Some("put aside: that snapshot has its manifest".to_owned());
            }
            _ => {}
        }
        report.damage.push(damage);
        Ok(())
    }

    /// One that is missing, damaged, not to be believed or another snapshot's comes back from its copy, and the other way
    /// round. Of two that differ and can both be believed, neither: after a rebuild the catalog only says what one of them did.
    fn check_manifest(
        &self,
        request: &Request,
        name: &str,
        row: &SnapshotRow,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let copy = copy_name(name);
        let pair = self.pair(&self.state(), name);
        let fits = |manifest: &Manifest| vault::row(manifest, row.ordinal) == *row;
        let other = || "it is of another snapshot, or the catalog is wrong".to_owned();
        let may_mend = request.mending == Mending::Mend;
        let dispute = pair.dispute();
        let (bad, why, good) = match (pair.manifest, pair.copy) {
            (Ok(manifest), None) if fits(&manifest) && may_mend => {
                return self.shared.blobs.put(&copy, &manifest.encode());
            }
            (Ok(manifest), None) if fits(&manifest) => {
                report.unprotected += 1;
                return Ok(());
            }
            (Ok(manifest), Some(Ok(same))) if fits(&manifest) && manifest == same => return Ok(()),
            (Ok(manifest), Some(Ok(_))) if fits(&manifest) => {
                (name.to_owned(), dispute.unwrap_or_else(other), None)
            }
            (Ok(manifest), Some(Err(why))) if fits(&manifest) => (copy, why, Some(manifest)),
            (found, copy) => {
                let why = found.err().unwrap_or_else(other);
                (name.to_owned(), why, copy.and_then(Result::ok).filter(fits))
            }
        };
        let mut damage = Damage::new(Part::File(bad.clone()), why);
        if let (Some(good), true) = (good, may_mend) {
            self.replace(&bad, &good.encode(), request.now)?;
            damage.mended = Some("written anew from its copy".to_owned());
        }
        report.damage.push(damage);
        Ok(())
    }

    /// The one in memory is right: it was read when the vault was opened, or is what the packs say.
    fn check_descriptor(&self, request: &Request, report: &mut Report) -> Result<(), StoreError> {
        let right = vault::descriptor_bytes(self.descriptor());
        for name in [DESCRIPTOR_FILE, DESCRIPTOR_COPY] {
            // One that cannot be read is not what it was.
            let found = match self.shared.blobs.len(name) {
                Ok(None) => None,
                _ => Some(self.shared.blobs.read(name, 0, right.len() + 1).unwrap_or_default()),
            };
            if found.as_ref() == Some(&right) {
                continue;
            }
            if found.is_none() && name == DESCRIPTOR_COPY {
                match request.mending {
                    Mending::Look => report.unprotected += 1,
                    Mending::Mend => self.shared.blobs.put(name, &right)?,
                }
                continue;
            }
            let mut damage =
                Damage::new(Part::File(name.to_owned()), "it is not what it was when the vault was opened");
            if request.mending == Mending::Mend {
                self.replace(name, &right, request.now)?;
                damage.mended = Some("written anew".to_owned());
            }
            report.damage.push(damage);
        }
        Ok(())
    }
}
