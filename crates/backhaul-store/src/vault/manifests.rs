//! Manifests and their copies, and which of them is to be believed. A checksum only says that a file is as somebody wrote
//! it: one that was edited, or is of another time, has a right one, too. What tells against it needs no key: its name, the
//! snapshot object in it, the pack in which that object lies, another snapshot that has it; and its copy.

use std::collections::{BTreeSet, HashMap, HashSet};

use backhaul_object::ids::ClientId;
use backhaul_object::{Kind, ObjectId};

use crate::atomic::sync_parent;
use crate::blobs::Blobs;
use crate::catalog::SnapshotRow;
use crate::check::{Damage, Part};
use crate::error::{Doing, StoreError};
use crate::index::Ordinal;
use crate::manifest::{MANIFEST_MAX, Manifest, copy_name, manifest_name};
use crate::pack;
use crate::reclaim::Pace;
use crate::vault::{State, Vault, pack_blob};

/// Who packs are of whose head was lost.
const NOBODY: ClientId = ClientId([0; 16]);

/// A manifest and its copy: each as it is, or why it is not to be believed.
pub(crate) struct Pair {
    name: String,
    pub(crate) manifest: Result<Manifest, String>,
    /// None where there is no file.
    pub(crate) copy: Option<Result<Manifest, String>>,
}

impl Pair {
    /// As far as they can be believed by themselves.
    pub(crate) fn read(blobs: &dyn Blobs, name: &str) -> Self {
        let (mine, copy) = (load(blobs, name), load(blobs, &copy_name(name)));
        let lone = |manifest: Manifest| manifest.refute(name).map(|()| manifest);
        let missing = || Err("it is missing".to_owned());
        Self {
            name: name.to_owned(),
            manifest: mine.unwrap_or_else(missing).and_then(lone),
            copy: copy.map(|copy| copy.and_then(lone)),
        }
    }

    /// Drops what also something else tells against.
    fn unless(self, refute: &dyn Fn(&Manifest) -> Result<(), String>) -> Self {
        let stands = |manifest: Manifest| refute(&manifest).map(|()| manifest);
        let copy = self.copy.map(|copy| copy.and_then(stands));
        Self { name: self.name, manifest: self.manifest.and_then(stands), copy }
    }

    /// Both can be believed and they differ: in what, and what to do, for nobody but a person can tell which is right.
    pub(crate) fn dispute(&self) -> Option<String> {
        let (Ok(manifest), Some(Ok(copy))) = (&self.manifest, &self.copy) else { return None };
        let differs = manifest.differs_in(copy)?;
        Some(format!(
            "its {differs} is not as in its copy, {}, and both are whole: one of them was edited or is of another time. Neither is \
             replaced, and nothing is reclaimed, until somebody has moved the wrong one elsewhere; then, with the server \
             stopped, `backhaul check --rebuild-index --repair` makes it anew from the other",
            copy_name(&self.name)
        ))
    }

    /// Those of the two that can be believed.
    pub(crate) fn believed(&self) -> impl Iterator<Item = &Manifest> {
        self.manifest.iter().chain(self.copy.iter().flatten())
    }

    /// The one that counts; in a dispute the one in its place.
    fn counts(self) -> Option<Manifest> {
        self.manifest.ok().or(self.copy.and_then(Result::ok))
    }
}

/// What stands in a file, or why that is no manifest; none where there is no file.
fn load(blobs: &dyn Blobs, file: &str) -> Option<Result<Manifest, String>> {
    let read = || {
        let bytes = blobs.read(file, 0, MANIFEST_MAX).map_err(|error| error.to_string())?;
        Manifest::decode(&bytes).map_err(|error| format!("the manifest is damaged: {error}"))
    };
    // One that cannot be looked at is there all the same.
    (!matches!(blobs.len(file), Ok(None))).then(read)
}

impl Manifest {
    /// Whether it belongs under a name, and is of the snapshot object that it holds.
    fn refute(&self, name: &str) -> Result<(), String> {
        if self.name() != name {
            return Err(format!("it is the manifest of {}", self.name()));
        }
        let (_, sealed) = pack::decode_record(&self.record)
            .map_err(|error| format!("its snapshot object cannot be read: {error}"))?;
        match sealed.header.kind {
            Kind::Snap if sealed.header.id == self.id => Ok(()),
            Kind::Snap => Err(format!("it holds snapshot {} and says {}", sealed.header.id, self.id)),
            _ => Err("what it holds is no snapshot".to_owned()),
        }
    }

    /// The first thing in which it says something else.
    fn differs_in(&self, other: &Self) -> Option<&'static str> {
        let differs = [
            (self.id != other.id, "snapshot"),
            (self.client_name != other.client_name, "client's name"),
            (self.server_time != other.server_time, "time"),
            (self.bytes_stored != other.bytes_stored, "count of bytes stored"),
            (self.objects_new != other.objects_new, "count of objects new"),
            (self.signature != other.signature, "signature"),
            (self.record != other.record, "snapshot object"),
        ];
        differs.into_iter().find_map(|(differs, what)| differs.then_some(what))
    }
}

/// Said of a manifest whose snapshot object is not there.
pub(crate) const NO_OBJECT: &str = "its snapshot object is not in the vault";

/// A manifest that the catalog does not have.
pub(crate) struct Stranger {
    pub(crate) pair: Pair,
    /// The snapshot object of the one that counts is not in the vault.
    pub(crate) is_lost: bool,
    /// What is there says only what the manifest of a snapshot that the catalog has says, too.
    pub(crate) is_superfluous: bool,
}

impl State {
    /// The manifests that snapshots have.
    fn owners(&self) -> Result<HashMap<ObjectId, String>, StoreError> {
        let rows = self.catalog.snapshots()?.into_iter();
        Ok(rows.map(|row| (row.id, manifest_name(row.client, row.sequence))).collect())
    }

    /// Whether the vault has a manifest's snapshot object, or knows that it had it.
    fn knows(&self, manifest: &Manifest) -> Result<bool, StoreError> {
        let id = &manifest.id;
        Ok(self.index.ordinal(id)?.is_some() || self.index.lost_ordinal(id)?.is_some())
    }

    /// Whether a manifest's snapshot object is in a pack of its client, and refers to the same. One that is not there tells
    /// nothing.
    fn vouch(&self, blobs: &dyn Blobs, manifest: &Manifest) -> Result<(), String> {
        let ordinal = self.index.ordinal(&manifest.id).map_err(|error| error.to_string())?;
        let Some(ordinal) = ordinal else { return Ok(()) };
        let at = self.index.location(ordinal).map_err(|error| error.to_string())?;
        let Some(row) = self.packs.get(&at.pack) else { return Ok(()) };
        if row.client != NOBODY && row.client != manifest.client {
            return Err(format!("its snapshot object is of client {}", row.client));
        }
        let Some(blob) = row.name.as_ref().map(pack_blob) else { return Ok(()) };
        let raw = blobs.read(&blob, u64::from(at.offset), at.len as usize).unwrap_or_default();
        // One that cannot be read says nothing: the manifest is there for that.
        match (pack::decode_record(&raw), pack::decode_record(&manifest.record)) {
            (Ok((_, stored)), Ok((_, held)))
                if stored.header.id == manifest.id && stored.header.references != held.header.references =>
            {
                Err("the snapshot object that it holds is not the one in the vault".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Vault {
    /// A manifest and its copy, as far as they can be believed.
    pub(crate) fn pair(&self, state: &State, name: &str) -> Pair {
        let blobs = &*self.shared.blobs;
        let pair = Pair::read(blobs, name).unless(&|manifest| state.vouch(blobs, manifest));
        // Beside one whose object is known, one of an object that nobody knows is of another vault, or of a time that never was.
        let is_known = |manifest: &Manifest| state.knows(manifest).unwrap_or(true);
        if !pair.believed().any(is_known) {
            return pair;
        }
        pair.unless(&|manifest| if is_known(manifest) { Ok(()) } else { Err(NO_OBJECT.to_owned()) })
    }

    /// Names of manifests, of those too of which only the copy is left.
    pub(crate) fn manifest_names(&self) -> Result<BTreeSet<String>, StoreError> {
        let (names, copies) = (self.shared.blobs.list("snaps")?, self.shared.blobs.list("copies")?);
        let of_copies = copies.iter().map(|copy| copy.replacen("copies/", "snaps/", 1));
        Ok(names.iter().cloned().chain(of_copies).filter(|name| name.ends_with(".snap")).collect())
    }

    /// Enters manifests that the catalog has not seen: the manifest file is what makes a snapshot exist.
    pub(crate) fn adopt_manifests(&self) -> Result<(), StoreError> {
        let names = self.shared.blobs.list("snaps")?;
        self.adopt_marks(&names)?;
        let mut state = self.state();
        let mut owners = state.owners()?;
        let known: HashSet<String> = owners.values().cloned().collect();
        let unknown = names.iter().filter(|name| name.ends_with(".snap") && !known.contains(*name));
        // Undisputed ones first: then it is known whose a snapshot is that two have.
        let (disputed, clear): (Vec<Pair>, Vec<Pair>) =
            unknown.map(|name| self.pair(&state, name)).partition(|pair| pair.dispute().is_some());
        for pair in clear.into_iter().chain(disputed) {
            // One that is damaged, cannot be read or is not believed must not lock everybody out; `check` names it.
            let counts = pair.unless(&|manifest| is_only_of(&owners, manifest)).counts();
            if let Some(manifest) = counts {
                self.enter_manifest(&mut state, &manifest)?;
                owners.insert(manifest.id, manifest.name());
            }
        }
        Ok(())
    }

    /// Enters one that has come back.
    pub(crate) fn adopt_manifest(&self, manifest: &Manifest) -> Result<(), StoreError> {
        self.enter_manifest(&mut self.state(), manifest)
    }

    fn enter_manifest(&self, state: &mut State, manifest: &Manifest) -> Result<(), StoreError> {
        let Some(ordinal) = state.index.ordinal(&manifest.id)? else { return Ok(()) };
        // Whoever wrote it may have ended before its name was durable.
        let path = self.shared.root.join(manifest.name());
        sync_parent(&path).doing("sync the directory of", &path)?;
        state.catalog.add_snapshot(&row(manifest, ordinal))
    }

    /// A manifest that the catalog does not have.
    pub(crate) fn stranger(&self, name: &str) -> Result<Stranger, StoreError> {
        let (state, blobs) = (self.state(), &*self.shared.blobs);
        let owners = state.owners()?;
        let has_owner = |file: &str| match load(blobs, file) {
            // A row alone may be what is wrong.
            Some(Ok(manifest)) => owners.get(&manifest.id).is_some_and(|owner| {
                owner != name && Pair::read(blobs, owner).manifest.is_ok_and(|it| it.id == manifest.id)
            }),
            Some(Err(_)) => false,
            None => true,
        };
        let is_superfluous = has_owner(name) && has_owner(&copy_name(name));
        let pair = self.pair(&state, name).unless(&|manifest| is_only_of(&owners, manifest));
        let counts = pair.believed().next().map(|manifest| manifest.id);
        let is_lost = counts.map_or(Ok(false), |id| state.index.ordinal(&id).map(|found| found.is_none()))?;
        Ok(Stranger { pair, is_lost, is_superfluous })
    }

    /// Manifests and copies that both can be believed and say different things.
    pub(crate) fn disputes(&self) -> Result<Vec<Damage>, StoreError> {
        let names = self.manifest_names()?;
        let state = self.state();
        let why =
            |name: String| self.pair(&state, &name).dispute().map(|why| Damage::new(Part::File(name), why));
        Ok(names.into_iter().filter_map(why).collect())
    }

    /// While a manifest says something else than its copy, or only the copy is left, nobody knows what is needed.
    ///
    /// # Errors
    /// [`StoreError::Unsure`] names it.
    pub(crate) fn refuse_disputed(&self, pace: &mut Pace<'_>) -> Result<(), StoreError> {
        for name in self.manifest_names()? {
            let blobs = &*self.shared.blobs;
            let (manifest, copy) = (load(blobs, &name), load(blobs, &copy_name(&name)));
            let bytes = |side: &Option<Result<Manifest, String>>| match side {
                Some(Ok(manifest)) => manifest.record.len() as u64,
                _ => 0,
            };
            pace(bytes(&manifest) + bytes(&copy))?;
            let why = match (manifest, copy) {
                (Some(Ok(manifest)), Some(Ok(copy))) if manifest != copy => "it is not as its copy",
                // Be it one that cannot be read: it says that there was a snapshot.
                (None, Some(_)) => {
                    let copy = copy_name(&name);
                    return Err(StoreError::Unsure {
                        why: format!(
                            "it is missing, and its copy is not: `backhaul check --repair` brings it back; if that cannot, \
                             {copy} is to be moved elsewhere to give the snapshot up"
                        ),
                        what: name,
                    });
                }
                _ => continue,
            };
            return Err(StoreError::Unsure { what: name, why: why.to_owned() });
        }
        Ok(())
    }
}

/// Whether no other manifest is known to have the same snapshot: the id covers client and number.
fn is_only_of(owners: &HashMap<ObjectId, String>, manifest: &Manifest) -> Result<(), String> {
    match owners.get(&manifest.id) {
        Some(owner) if *owner != manifest.name() => Err(format!("its snapshot is that of {owner}")),
        _ => Ok(()),
    }
}

/// The catalog row of a manifest.
pub(crate) fn row(manifest: &Manifest, ordinal: Ordinal) -> SnapshotRow {
    SnapshotRow {
        id: manifest.id,
        ordinal,
        client: manifest.client,
        client_name: manifest.client_name.clone(),
        sequence: manifest.sequence,
        server_time: manifest.server_time,
        bytes_stored: manifest.bytes_stored,
        objects_new: manifest.objects_new,
    }
}
