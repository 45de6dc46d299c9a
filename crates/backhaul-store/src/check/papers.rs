//! The small files: manifests and their copies, the descriptor and its copy, the catalog.

use std::collections::BTreeMap;

use super::{Damage, Mending, Part, Report, Request};
use crate::catalog::SnapshotRow;
use crate::error::{Of, StoreError};
use crate::manifest::{MANIFEST_MAX, Manifest, copy_name, manifest_name};
use crate::vault::{self, DESCRIPTOR_COPY, DESCRIPTOR_FILE, Vault};

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
        let rows = self.state().catalog.snapshots()?;
        let mut unknown = self.shared.blobs.list("snaps")?;
        let mut known: BTreeMap<String, SnapshotRow> =
            rows.into_iter().map(|row| (manifest_name(row.client, row.sequence), row)).collect();
        unknown.retain(|name| name.ends_with(".snap") && !known.contains_key(name));
        for name in unknown {
            // Made since the list of snapshots was.
            let is_new = self
                .state()
                .catalog
                .snapshots()?
                .into_iter()
                .find(|row| manifest_name(row.client, row.sequence) == name);
            match is_new {
                Some(row) => drop(known.insert(name, row)),
                None => {
                    let why = match self.manifest(&name) {
                        Ok(_) => "its snapshot object is not in the vault".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    report.damage.push(Damage::new(Part::File(name), why));
                }
            }
        }
        for (name, row) in known {
            self.check_manifest(request, &name, &row, report)?;
        }
        Ok(())
    }

    fn manifest(&self, name: &str) -> Result<Manifest, StoreError> {
        if self.shared.blobs.len(name)?.is_none() {
            return Err(StoreError::damaged("the manifest", "it is missing"));
        }
        Manifest::decode(&self.shared.blobs.read(name, 0, MANIFEST_MAX)?).of(|| "the manifest".into())
    }

    /// One that is missing, damaged, or another snapshot's comes back from its copy, and the other way round.
    fn check_manifest(
        &self,
        request: &Request,
        name: &str,
        row: &SnapshotRow,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let copy = copy_name(name);
        let fitting = |name: &str| {
            let found = self.manifest(name)?;
            match vault::row(&found, row.ordinal) == *row {
                true => Ok(found),
                false => Err(StoreError::damaged(
                    "the manifest",
                    "it is of another snapshot, or the catalog is wrong",
                )),
            }
        };
        let has_copy = !matches!(self.shared.blobs.len(&copy), Ok(None));
        let may_mend = request.mending == Mending::Mend;
        let (bad, why, good) = match (fitting(name), fitting(&copy)) {
            (Ok(manifest), Ok(same)) if manifest == same => return Ok(()),
            (Ok(manifest), _) if !has_copy && may_mend => {
                return self.shared.blobs.put(&copy, &manifest.encode());
            }
            (Ok(_), _) if !has_copy => {
                report.unprotected += 1;
                return Ok(());
            }
            (Ok(manifest), Ok(_)) => (copy, "it is not as the manifest".to_owned(), Some(manifest)),
            (Ok(manifest), Err(error)) => (copy, error.to_string(), Some(manifest)),
            (Err(error), good) => (name.to_owned(), error.to_string(), good.ok()),
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
