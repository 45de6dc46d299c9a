//! The one place that makes things durable, in the one right order.

use backhaul_object::breach::Breach;

use crate::acknowledged::Acknowledged;
use crate::atomic::sync_parent;
use crate::catalog::{Claims, PackRow};
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
        let done = self.try_flush(state);
        // After a failed sync the kernel may have dropped what it could not write.
        let failed = matches!(done, Err(StoreError::Io { doing: "sync", .. }));
        state.poisoned = failed && !Breach::RetriedSync.is_on();
        done
    }

    /// Whatever fails here is tried again by the next flush: nothing leaves `pending` before it is recorded.
    fn try_flush(&self, state: &mut State) -> Result<(), StoreError> {
        self.sync_packs(state)?;
        let has_revived = state.index.revived().next().is_some();
        let claims = !state.proven.is_empty() || !state.fence.resurrected().is_empty();
        if !state.pending.is_empty() || claims || has_revived {
            state.index.flush()?;
            let counts = state.index.counts()?;
            let rows: Vec<PackRow> = state.pending.values().cloned().collect();
            let claims = Claims {
                epoch: state.fence.epoch(),
                proven: &state.proven,
                uploads: Some(&state.uploads),
                resurrected: state.fence.resurrected(),
            };
            state.catalog.flush(counts, &rows, &claims)?;
            let (generation, objects) = (self.generation(), counts.objects);
            Acknowledged { generation, objects }.note(&self.shared.root);
            state.proven.clear();
            state.fence.noted();
        }
        self.keep_revived(state)?;
        while let Some(row) = state.pending.values().next().cloned() {
            if let Some(name) = row.name {
                // Readers look in `open/` until the row here says otherwise.
                let file = self.shared.root.join(open_name(row.number));
                self.shared.blobs.adopt(&file, &pack_blob(&name))?;
                self.shared.parity.add(name, row.class, row.bytes);
            }
            state.pending.remove(&row.number);
            state.packs.insert(row.number, row);
        }
        Ok(())
    }

    /// Syncs what is dirty and seals what is complete; the new catalog rows are then pending.
    fn sync_packs(&self, state: &mut State) -> Result<(), StoreError> {
        let due: Vec<u32> =
            state.writers.iter().filter(|(_, w)| w.dirty || w.complete).map(|(number, _)| *number).collect();
        for number in &due {
            let Some(mut row) = state.packs.get(number).cloned() else { continue };
            let Some(writing) = state.writers.get_mut(number) else { continue };
            if !writing.complete {
                writing.writer.sync()?;
                writing.dirty = false;
                row.bytes = writing.writer.len();
            } else if writing.writer.is_empty() {
                state.catalog.remove_pack(*number)?;
                writing.writer.discard()?;
                state.writers.remove(number);
                state.packs.remove(number);
                continue;
            } else {
                let (_, name, bytes) = writing.writer.finish()?;
                (row.name, row.bytes) = (Some(name), bytes);
                state.writers.remove(number);
            }
            state.pending.insert(*number, row);
        }
        if !due.is_empty() {
            let open = self.shared.root.join("open");
            sync_parent(&open.join("x")).doing("sync", &open)?;
        }
        Ok(())
    }
}
