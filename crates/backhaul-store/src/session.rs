//! Adding objects to a vault: the only way in.

use backhaul_object::breach::Breach;
use backhaul_object::ids::{ClientId, SessionId};
use backhaul_object::{Kind, ObjectId, Sealed};

use crate::catalog::{PackRow, SnapshotRow, Upload};
use crate::error::StoreError;
use crate::index::{Edge, Index, Location, Ordinal};
use crate::manifest::{Manifest, copy_name};
use crate::pack::{Class, Head, encode_record};
use crate::reclaim::Pass;
use crate::vault::{State, Vault, Writing, open_name};
use crate::writer::PackWriter;

/// One client's writing. Dropping it keeps what was appended: a later session of the client may refer to it.
pub struct WriteSession {
    vault: Vault,
    session: SessionId,
    client: ClientId,
    open: [Option<u32>; 2],
    objects_new: u64,
    bytes_stored: u64,
    failed: bool,
    _pass: Pass,
}

/// What the server knows about a snapshot besides its object.
#[derive(Debug, Clone)]
pub struct Commit<'a> {
    /// The client's name.
    pub client_name: &'a str,
    /// Its number among the client's snapshots.
    pub sequence: u64,
    /// Seconds since 1970.
    pub server_time: u64,
    /// The client's signature over the snapshot's id.
    pub signature: Vec<u8>,
}

impl WriteSession {
    pub(crate) fn new(vault: Vault, session: SessionId, client: ClientId) -> Self {
        let pass = vault.enter("a backup");
        let (open, objects_new, bytes_stored, failed) = ([None; 2], 0, 0, false);
        Self { vault, session, client, open, objects_new, bytes_stored, failed, _pass: pass }
    }

    /// Objects and bytes this session added.
    pub fn added(&self) -> (u64, u64) {
        (self.objects_new, self.bytes_stored)
    }

    /// Adds an object whose references are all there; one that is already there is not written again.
    ///
    /// # Errors
    /// The disk refused: the session is over.
    pub fn append(&mut self, sealed: &Sealed, edges: &[Edge]) -> Result<Ordinal, StoreError> {
        if self.failed {
            return Err(StoreError::Poisoned);
        }
        let result = self.unreadable(&sealed.header.id).and_then(|bad| self.put(sealed, edges, bad));
        self.failed = result.is_err();
        result
    }

    /// Writes an object that has a number once more, in another place: that is where it is once this is durable.
    ///
    /// # Errors
    /// The disk refused: the session is over, and the object is where it was.
    pub(crate) fn move_here(
        &mut self,
        ordinal: Ordinal,
        sealed: &Sealed,
        edges: &[Edge],
    ) -> Result<(), StoreError> {
        let result = self.put(sealed, edges, Some(ordinal));
        self.failed = result.is_err();
        result.map(drop)
    }

    /// `bad`: a number under which it cannot serve, and which it takes if it can.
    fn put(&mut self, sealed: &Sealed, edges: &[Edge], bad: Option<Ordinal>) -> Result<Ordinal, StoreError> {
        let vault = self.vault.clone();
        let mut guard = vault.state();
        let state = &mut *guard;
        if state.poisoned {
            return Err(StoreError::Poisoned);
        }
        if let Some(ordinal) = state.index.ordinal(&sealed.header.id)?
            && state.claim(ordinal)?
            && bad != Some(ordinal)
        {
            return Ok(ordinal);
        }
        state.claim_all(&sealed.header, edges)?;
        let class = Class::of(sealed.header.kind);
        let number = self.open_pack(state, class)?;
        let Some(writing) = state.writers.get_mut(&number) else { return Err(StoreError::Poisoned) };
        let known = match bad {
            None => state.index.lost_ordinal(&sealed.header.id)?,
            bad => bad,
        };
        let lost =
            known.map(|known| takes_number(&mut state.index, known, sealed, edges)).transpose()?.flatten();
        let ordinal = lost.unwrap_or(Ordinal(state.index.objects()));
        let row = writing.writer.append(ordinal, &sealed.header.encode(), &sealed.body)?;
        writing.dirty = true;
        if writing.writer.len() >= class.target() {
            writing.complete = true;
            self.open[class as usize] = None;
        }
        if let Some(pack) = state.packs.get_mut(&number) {
            pack.objects += 1;
            pack.bytes += row.len();
        }
        let at = Location { pack: number, offset: row.offset, len: row.len() as u32 };
        self.objects_new += 1;
        self.bytes_stored += row.len();
        match lost {
            Some(lost) => state.revive(lost, &sealed.header, at).map(|()| lost),
            None => {
                let ordinal = state.index.append(&sealed.header, at, edges)?;
                // So that whoever asks for it finds the new one.
                bad.map_or(Ok(()), |bad| state.index.mark_lost(bad)).map(|()| ordinal)
            }
        }
    }

    /// The number under which an object is there and cannot be read, or a patch whose bases cannot: whoever sends it again must
    /// not be told that it is there. Nobody holds the state meanwhile.
    fn unreadable(&self, id: &ObjectId) -> Result<Option<Ordinal>, StoreError> {
        let Some(ordinal) = self.vault.ordinal(id)? else { return Ok(None) };
        match self.vault.get(ordinal) {
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(_) => Ok(Some(ordinal)),
            Ok(sealed) if sealed.header.kind == Kind::Patch => {
                for base in &sealed.header.references {
                    let there = self.vault.ordinal(&base.id)?;
                    if there.is_none_or(|there| self.vault.get(there).is_err()) {
                        return Ok(Some(ordinal));
                    }
                }
                Ok(None)
            }
            Ok(_) => Ok(None),
        }
    }

    /// The number of the pack into which objects of a class go now.
    fn open_pack(&mut self, state: &mut State, class: Class) -> Result<u32, StoreError> {
        if let Some(number) = self.open[class as usize] {
            return Ok(number);
        }
        let (number, shared) = (state.next_pack, &self.vault.shared);
        let (session, client) = (self.session, self.client);
        let head = Head { class, vault: shared.descriptor.vault, session, client };
        let writer = PackWriter::create(&shared.root.join(open_name(number)), &head)?;
        let bytes = writer.len();
        state.writers.insert(number, Writing { writer, dirty: true, complete: false });
        let row = PackRow { number, name: None, class, session, client, bytes, objects: 0 };
        state.packs.insert(number, row);
        let epoch = state.fence.epoch();
        state.uploads.entry(session).or_insert(Upload { client, epoch });
        state.next_pack += 1;
        self.open[class as usize] = Some(number);
        Ok(number)
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// The disk refused: the session is over.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Poisoned);
        }
        let result = self.vault.flush();
        self.failed = result.is_err();
        result
    }

    /// Makes the snapshot exist. Order: objects sealed in packs and durable, index, catalog, then the manifest
    /// file (from here on the snapshot exists), then its catalog row.
    ///
    /// # Errors
    /// The disk refused: no snapshot was made.
    pub fn commit(
        &mut self,
        snap: &Sealed,
        edges: &[Edge],
        commit: Commit<'_>,
    ) -> Result<SnapshotRow, StoreError> {
        let ordinal = self.append(snap, edges)?;
        self.seal_packs();
        if !Breach::ManifestFirst.is_on() {
            self.flush()?;
        }
        let manifest = Manifest {
            id: snap.header.id,
            client: self.client,
            client_name: commit.client_name.to_owned(),
            sequence: commit.sequence,
            server_time: commit.server_time,
            bytes_stored: self.bytes_stored,
            objects_new: self.objects_new,
            signature: commit.signature,
            record: encode_record(ordinal, &snap.header.encode(), &snap.body),
        };
        // A copy alone is of a snapshot whose manifest was lost.
        for name in [manifest.name(), copy_name(&manifest.name())] {
            if self.vault.shared.blobs.len(&name)?.is_some() {
                return Err(StoreError::damaged(name, "another snapshot has this place"));
            }
        }
        self.vault.shared.blobs.put(&manifest.name(), &manifest.encode())?;
        if Breach::ManifestFirst.is_on() {
            self.flush()?;
        }
        // The snapshot exists; a copy that cannot be written is made by the scrub.
        let _ = self.vault.shared.blobs.put(&copy_name(&manifest.name()), &manifest.encode());
        let row = crate::vault::row(&manifest, ordinal);
        let mut state = self.vault.state();
        state.catalog.add_snapshot(&row)?;
        state.uploads.retain(|_, upload| upload.client != row.client);
        Ok(row)
    }

    /// Ends the writing: what was appended is sealed and durable.
    ///
    /// # Errors
    /// The disk refused.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.seal_packs();
        self.flush()
    }

    fn seal_packs(&mut self) {
        let mut state = self.vault.state();
        for number in self.open.iter_mut().filter_map(Option::take) {
            if let Some(writing) = state.writers.get_mut(&number) {
                writing.complete = true;
            }
        }
    }
}

/// What was lost, or cannot be read, and comes back with the references it had takes its number again, and heals what refers
/// to it.
fn takes_number(
    index: &mut Index,
    known: Ordinal,
    sealed: &Sealed,
    edges: &[Edge],
) -> Result<Option<Ordinal>, StoreError> {
    if index.edges(known)? == edges {
        return Ok(Some(known));
    }
    // It was a patch, and comes back whole.
    let is_whole = sealed.header.kind == Kind::Chunk;
    if is_whole {
        index.drop_references(known)?;
    }
    Ok(is_whole.then_some(known))
}

impl Drop for WriteSession {
    fn drop(&mut self) {
        self.seal_packs();
        // What fails here was not acknowledged, and fails again, aloud, in the next session.
        let _ = self.vault.flush();
    }
}
