//! Reading what is at rest.

use backhaul_object::{Header, ObjectId, Sealed, ShortId};

use crate::blobs::Blobs;
use crate::error::{Of, StoreError};
use crate::index::{Location, Ordinal};
use crate::pack::{self, RECORD_HEAD_LEN};
use crate::vault::{Vault, open_name, pack_blob};

/// Something that is read where an object is, and says which it is.
trait Placed {
    fn id(&self) -> ObjectId;
}

impl Placed for Sealed {
    fn id(&self) -> ObjectId {
        self.header.id
    }
}

impl Placed for Header {
    fn id(&self) -> ObjectId {
        self.id
    }
}

impl Vault {
    /// An object's header as it is at rest: its id fits the index, its record's checksum is not looked at.
    ///
    /// # Errors
    /// Lost, damaged, or the disk refused.
    pub fn header(&self, ordinal: Ordinal) -> Result<Header, StoreError> {
        self.read_placed(ordinal, &mut |id, at| {
            let read = |from: u64, len: usize| self.read_pack(at.pack, u64::from(at.offset) + from, len);
            let what = || format!("object {id}");
            let head = read(0, RECORD_HEAD_LEN)?;
            let len = pack::decode_record_head(&head, at.offset).of(what)?.0.header_len;
            Header::decode(&read(RECORD_HEAD_LEN as u64, len.min(at.len) as usize)?).of(what)
        })
    }

    /// Reads an object as it is at rest; its record's checksum and id are checked, its seal is not.
    ///
    /// # Errors
    /// Lost, damaged, or the disk refused.
    pub fn get(&self, ordinal: Ordinal) -> Result<Sealed, StoreError> {
        self.read_placed(ordinal, &mut |id, at| {
            let record = self.read_pack(at.pack, u64::from(at.offset), at.len as usize)?;
            Ok(pack::decode_record(&record).of(|| format!("object {id}"))?.1)
        })
    }

    /// Reads what stands where an object is.
    fn read_placed<T: Placed>(
        &self,
        ordinal: Ordinal,
        read: &mut dyn FnMut(ShortId, Location) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let look = || {
            let state = self.state();
            Ok::<_, StoreError>((state.index.short(ordinal)?, state.index.location(ordinal)?))
        };
        let mut one = |(id, at): (ShortId, Location)| {
            if at.len == 0 {
                return Err(StoreError::NotFound(id));
            }
            let found = read(id, at)?;
            match found.id().short() == id {
                true => Ok(found),
                false => Err(StoreError::damaged(format!("object {id}"), "another object is in its place")),
            }
        };
        let mut place = look()?;
        loop {
            match one(place) {
                Ok(found) => return Ok(found),
                // It may have moved to another pack meanwhile.
                Err(error) => match look()? {
                    again if again == place => return Err(error),
                    again => place = again,
                },
            }
        }
    }

    /// Bytes of a pack, wherever it is now.
    pub(crate) fn read_pack(&self, number: u32, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let name = |vault: &Self| vault.state().packs.get(&number).and_then(|row| row.name);
        match name(self) {
            Some(sealed) => self.shared.blobs.read(&pack_blob(&sealed), offset, len),
            None => match self.shared.spool.read(&open_name(number), offset, len) {
                Ok(bytes) => Ok(bytes),
                // It was sealed and moved between the two looks.
                Err(error) => match name(self) {
                    Some(sealed) => self.shared.blobs.read(&pack_blob(&sealed), offset, len),
                    None => Err(error),
                },
            },
        }
    }
}
