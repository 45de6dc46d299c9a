//! The one place that makes things durable, in the one right order.

use std::fs;

use crate::atomic::sync_parent;
use crate::catalog::{Counts, PackRow};
use crate::error::{Doing, StoreError};
use crate::vault::{State, Vault, open_name, pack_blob};

impl Vault {
    /// Makes all that any session appended durable: pack bytes, then index, then catalog. Packs that are
    /// complete get their name in the same transaction, and move to their place after it.
    ///
    /// # Errors
    /// The disk refused. After a failed sync nothing more is written until the vault is opened again.
    pub fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        self.flush_locked(&mut state)
    }

    pub(crate) fn flush_locked(&self, state: &mut State) -> Result<(), StoreError> {
        if state.poisoned {
            return Err(StoreError::Poisoned);
        }
        let synced = self.sync_packs(state);
        if synced.is_err() {
            state.poisoned = true;
        }
        let (rows, finished) = synced?;
        if rows.is_empty() && state.proven.is_empty() {
            return Ok(());
        }
        state.index.flush()?;
        let counts = Counts { objects: state.index.objects(), members: state.index.members() };
        state.catalog.flush(counts, &rows, &state.proven)?;
        state.proven.clear();
        for row in rows {
            state.packs.insert(row.number, row);
        }
        for number in finished {
            if let Some(name) = state.packs.get(&number).and_then(|row| row.name) {
                let file = self.shared.root.join(open_name(number));
                self.shared.blobs.adopt(&file, &pack_blob(&name))?;
            }
        }
        Ok(())
    }

    /// Syncs what is dirty and seals what is complete; returns the new catalog rows and the sealed numbers.
    fn sync_packs(&self, state: &mut State) -> Result<(Vec<PackRow>, Vec<u32>), StoreError> {
        let due: Vec<u32> =
            state.writers.iter().filter(|(_, w)| w.dirty || w.complete).map(|(number, _)| *number).collect();
        let (mut rows, mut finished) = (Vec::new(), Vec::new());
        for number in &due {
            let Some(mut row) = state.packs.get(number).cloned() else { continue };
            let Some(writing) = state.writers.get_mut(number) else { continue };
            if !writing.complete {
                writing.writer.sync()?;
                writing.dirty = false;
                row.bytes = writing.writer.len();
                rows.push(row);
                continue;
            }
            let Some(writing) = state.writers.remove(number) else { continue };
            if writing.writer.is_empty() {
                state.packs.remove(number);
                state.catalog.remove_pack(*number)?;
                writing.writer.discard()?;
                continue;
            }
            let (_, name, bytes) = writing.writer.finish()?;
            (row.name, row.bytes) = (Some(name), bytes);
            rows.push(row);
            finished.push(*number);
        }
        if !due.is_empty() {
            let open = self.shared.root.join("open");
            sync_parent(&open.join("x")).doing("sync", &open)?;
        }
        rows.sort_by_key(|row| row.number);
        Ok((rows, finished))
    }

    /// Removes files in `open/` that the catalog does not know: nothing in them was acknowledged.
    pub(crate) fn sweep_open(&self) -> Result<(), StoreError> {
        let known: Vec<String> = self.state().writers.keys().map(|number| open_name(*number)).collect();
        for name in crate::blobs::Blobs::list(&self.shared.spool, "open")? {
            if !known.contains(&name) {
                let path = self.shared.root.join(&name);
                fs::remove_file(&path).doing("remove", &path)?;
            }
        }
        Ok(())
    }
}
