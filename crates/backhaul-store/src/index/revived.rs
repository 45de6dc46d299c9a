//! Numbers that are lost, and such as come back. A row of what was there before is written over only when the record that
//! it leads to is durable and known to the catalog: a row below what is committed is not cut off when the index is opened.

use super::rows::{self, LOST, PLACE_LEN};
use super::{Index, Location, Ordinal};
use crate::error::StoreError;
use backhaul_object::Header;
use backhaul_object::breach::Breach;

impl Index {
    /// Forgets where an object is: it is lost, and wanted. Its name and its references stay.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn mark_lost(&mut self, ordinal: Ordinal) -> Result<(), StoreError> {
        self.revived.remove(&ordinal.0);
        self.places.patch(ordinal.0 * PLACE_LEN, &rows::place(LOST)?)
    }

    /// Gives a lost number back to its object, whose references are those it had: what refers to it is whole again. In
    /// memory: [`Index::revived`] is to be written down, and then [`Index::keep_revived`].
    ///
    /// # Errors
    /// No pack has such a place, or the index cannot be read.
    pub fn revive(&mut self, lost: Ordinal, header: &Header, at: Location) -> Result<(), StoreError> {
        rows::place(at)?;
        if !self.has_members(lost, header)? {
            self.append_members(lost, header)?;
        }
        if Breach::RevivedEarly.is_on() {
            return self.places.patch(lost.0 * PLACE_LEN, &rows::place(at)?);
        }
        self.revived.insert(lost.0, at);
        Ok(())
    }

    /// What has come back since the rows were last written, by number.
    pub fn revived(&self) -> impl Iterator<Item = (Ordinal, Location)> + '_ {
        self.revived.iter().map(|(number, at)| (Ordinal(*number), *at))
    }

    /// Writes the rows of what has come back, and syncs them.
    ///
    /// # Errors
    /// The index cannot be written; what has come back is still known.
    pub fn keep_revived(&mut self) -> Result<(), StoreError> {
        for (number, at) in &self.revived {
            self.places.patch(number * PLACE_LEN, &rows::place(*at)?)?;
        }
        self.flush()?;
        self.revived.clear();
        Ok(())
    }
}
