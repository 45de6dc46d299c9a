//! What objects refer to. Few objects refer to anything, so only those have a row.

use super::rows::{self, PARENT_LEN, Parent};
use super::{Edge, Index, Ordinal};
use crate::error::StoreError;

/// Rows among which is searched without reading again.
const NEAR: u64 = 128;

impl Index {
    pub(super) fn append_references(&mut self, of: Ordinal, edges: &[Edge]) -> Result<(), StoreError> {
        if edges.is_empty() {
            return Ok(());
        }
        let mut raw = Vec::new();
        rows::references(of, edges, &mut raw)?;
        self.references.append(&raw);
        let row = rows::parent(of, self.references.len());
        self.parents.append(&row);
        Ok(())
    }

    /// A lost number refers to nothing any more: its object comes back in another form.
    ///
    /// # Errors
    /// The index cannot be read or written.
    pub fn drop_references(&mut self, lost: Ordinal) -> Result<(), StoreError> {
        match self.parents(lost.0, lost.0 + 1)?.first() {
            Some(Parent { span, .. }) => {
                let blank = vec![rows::DROPPED; (span.end - span.start) as usize];
                self.references.patch(span.start, &blank)
            }
            None => Ok(()),
        }
    }

    /// How many rows of `parents` are of smaller numbers.
    fn parents_before(&self, ordinal: Ordinal) -> Result<u64, StoreError> {
        let (mut low, mut high) = (0, self.parents.len() / PARENT_LEN);
        while high - low > NEAR {
            let middle = low + (high - low) / 2;
            let (at, _) = rows::parent_of(&self.parents.array(middle * PARENT_LEN)?);
            if at < ordinal { low = middle + 1 } else { high = middle }
        }
        let raw = self.parents.read(low * PARENT_LEN, (high - low) * PARENT_LEN)?;
        let before = |row: &&[u8; 16]| rows::parent_of(row).0 < ordinal;
        Ok(low + raw.as_chunks().0.iter().take_while(before).count() as u64)
    }

    /// Those of the numbers `from..to` that refer to something, in order.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn parents(&self, from: u64, to: u64) -> Result<Vec<Parent>, StoreError> {
        let (first, end) = (self.parents_before(Ordinal(from))?, self.parents_before(Ordinal(to))?);
        // The row before says where the first one's references begin.
        let start = match first.checked_sub(1) {
            Some(before) => rows::parent_of(&self.parents.array(before * PARENT_LEN)?).1,
            None => 0,
        };
        let raw = self.parents.read(first * PARENT_LEN, end.saturating_sub(first) * PARENT_LEN)?;
        rows::parents(&raw, start, self.objects())
    }

    /// What an object refers to.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn edges(&self, ordinal: Ordinal) -> Result<Vec<Edge>, StoreError> {
        match self.parents(ordinal.0, ordinal.0 + 1)?.first() {
            Some(parent) => self.edges_of(parent),
            None => Ok(Vec::new()),
        }
    }

    /// What one of [`Index::parents`] refers to.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn edges_of(&self, parent: &Parent) -> Result<Vec<Edge>, StoreError> {
        let raw = self.references.read(parent.span.start, parent.span.end - parent.span.start)?;
        rows::edges(parent.ordinal, &raw)
    }
}
