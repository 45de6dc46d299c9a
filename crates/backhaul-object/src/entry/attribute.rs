//! Extended attributes as extensions of an entry.

use super::{EXTENSION_ATTRIBUTE, NAME_MAX};
use crate::codec::{Reader, Write};

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// With its namespace: `user.comment`.
    pub name: Vec<u8>,
    /// Any bytes.
    pub value: Vec<u8>,
}

impl Attribute {
    /// Bytes of name and value.
    pub fn size(&self) -> usize {
        self.name.len() + self.value.len()
    }

    /// As it is in an entry.
    pub fn extension(&self) -> (u64, Vec<u8>) {
        let mut out = Vec::with_capacity(2 + self.name.len() + self.value.len());
        out.put_bytes(&self.name);
        out.extend_from_slice(&self.value);
        (EXTENSION_ATTRIBUTE, out)
    }

    pub(super) fn from_extension(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let name = r.bytes("attribute", NAME_MAX).ok()?.to_vec();
        let value = r.rest().to_vec();
        (!name.is_empty() && !name.contains(&0)).then_some(Self { name, value })
    }
}
