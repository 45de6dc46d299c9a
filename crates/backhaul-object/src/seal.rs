//! From plaintext to the wire to the disk: [`Object`] ⇄ [`Compressed`] ⇄ [`Sealed`].
//!
//! A managed vault's agents send [`Compressed`] inside TLS; the server opens, re-hashes and seals it. In a
//! sealed vault the agent seals. Either way the record at rest is the same.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;

use crate::breach::Breach;
use crate::codec::FormatError;
use crate::header::{Compressor, Header, Kind, PLAIN_MAX, Reference, encode_references};
use crate::ids::{ObjectId, Proof};
use crate::keys::{DataKey, IdKey};

mod packer;

pub use packer::Packer;

/// AES-256-GCM under a per-record key (docs/format.md, "Sealing").
pub const SUITE_AES_256_GCM: u8 = 1;
/// Bytes that sealing adds: suite, nonce, tag.
pub const SEAL_OVERHEAD: usize = 1 + 24 + 16;
pub(crate) const NO_CONTEXT: FormatError = FormatError::Invalid("zstd context");

/// An object in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// What its payload refers to by index.
    pub references: Vec<Reference>,
    /// Members of a bundle.
    pub provides: Vec<(ObjectId, Proof)>,
    /// The plaintext.
    pub payload: Bytes,
}

/// An object as it travels: clear header, compressed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressed {
    /// The clear header.
    pub header: Header,
    /// The payload after compression.
    pub body: Bytes,
}

/// An object at rest: clear header, sealed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The clear header; authenticated by the seal.
    pub header: Header,
    /// Suite, 24-byte nonce, ciphertext, tag.
    pub body: Bytes,
}

/// A reusable decompression context.
pub struct Unpacker {
    zstd: zstd::bulk::Decompressor<'static>,
    /// Room for a plaintext.
    room: Vec<u8>,
}

impl Object {
    /// Id and proof (docs/format.md, "Ids"). A bundle is named by its members, not by its frame, so that
    /// whoever holds the key may drop dead members without renaming it.
    pub fn identify(&self, key: &IdKey) -> (ObjectId, Proof) {
        if self.kind == Kind::Bundle {
            let members: Vec<u8> = self.provides.iter().flat_map(|(id, _)| *id.as_bytes()).collect();
            return key.identify(&[&[self.kind as u8], &members]);
        }
        if self.references.is_empty() && self.kind == Kind::Chunk {
            return identify_content(key, &self.payload);
        }
        let mut references = Vec::new();
        encode_references(&mut references, &self.references);
        key.identify(&[&[self.kind as u8], &references, &self.payload])
    }

    /// Compresses, and names the object.
    ///
    /// # Errors
    /// A payload over [`PLAIN_MAX`].
    pub fn compress(self, key: &IdKey, packer: &mut Packer) -> Result<Compressed, FormatError> {
        let (id, proof) = self.identify(key);
        self.compress_as(id, proof, packer)
    }

    /// As [`Object::compress`], for a caller that already knows id and proof.
    ///
    /// # Errors
    /// A payload over [`PLAIN_MAX`].
    pub fn compress_as(
        self,
        id: ObjectId,
        proof: Proof,
        packer: &mut Packer,
    ) -> Result<Compressed, FormatError> {
        let len = self.payload.len();
        if len > PLAIN_MAX {
            let (value, limit) = (len as u64, PLAIN_MAX as u64);
            return Err(FormatError::TooLarge { what: "payload", value, limit });
        }
        let packed = packer.pack(self.kind, &self.payload)?;
        let (compressor, body) = match packed {
            Some(body) => (Compressor::Zstd, body),
            None => (Compressor::Raw, self.payload),
        };
        let header = Header {
            kind: self.kind,
            id,
            proof,
            compressor,
            plain_len: len as u32,
            references: self.references,
            provides: self.provides,
        };
        Ok(Compressed { header, body })
    }
}

/// Id and proof of file content: the same for a chunk and for a bundle member.
pub fn identify_content(key: &IdKey, content: &[u8]) -> (ObjectId, Proof) {
    key.identify(&[&[Kind::Chunk as u8], content])
}

impl Unpacker {
    /// A fresh context.
    ///
    /// # Errors
    /// zstd could not allocate its context.
    pub fn new() -> Result<Self, FormatError> {
        let zstd = zstd::bulk::Decompressor::new().map_err(|_| NO_CONTEXT)?;
        Ok(Self { zstd, room: Vec::new() })
    }

    /// Takes back the room of an object that is not needed any more, for the next one.
    pub fn recycle(&mut self, object: Object) {
        self.take_back(object.payload);
    }

    /// Takes back the room of a payload that is not needed any more.
    pub fn take_back(&mut self, payload: Bytes) {
        if payload.is_unique() {
            self.room = Vec::from(payload);
        }
    }
}

impl Compressed {
    /// Decompresses and re-hashes: what comes back has exactly the id of the header. A patch has none of its own, and is
    /// opened with its bases ([`crate::patch::rebuild`]).
    ///
    /// # Errors
    /// [`FormatError::Mismatch`] when content, length, members and id do not agree.
    pub fn open(&self, key: &IdKey, unpacker: &mut Unpacker) -> Result<Object, FormatError> {
        if self.header.kind == Kind::Patch {
            return Err(FormatError::Invalid("a patch is not opened without its bases"));
        }
        let object = self.unpack(unpacker)?;
        if Breach::UncheckedContent.is_on() {
            return Ok(object);
        }
        if object.kind == Kind::Bundle {
            crate::bundle::verify(&object, key)?;
        }
        let (id, proof) = object.identify(key);
        if id != self.header.id || proof != self.header.proof {
            return Err(FormatError::Mismatch("id"));
        }
        Ok(object)
    }

    pub(crate) fn unpack(&self, unpacker: &mut Unpacker) -> Result<Object, FormatError> {
        let want = self.header.plain_len as usize;
        let payload = match self.header.compressor {
            Compressor::Raw => self.body.clone(),
            Compressor::Zstd => {
                let mut out = std::mem::take(&mut unpacker.room);
                out.clear();
                out.reserve_exact(want);
                unpacker
                    .zstd
                    .decompress_to_buffer(&self.body, &mut out)
                    .map_err(|_| FormatError::Mismatch("zstd frame"))?;
                Bytes::from(out)
            }
        };
        if payload.len() != want {
            return Err(FormatError::Mismatch("plain length"));
        }
        Ok(Object {
            kind: self.header.kind,
            references: self.header.references.clone(),
            provides: self.header.provides.clone(),
            payload,
        })
    }

    /// Seals under a fresh random nonce.
    ///
    /// # Errors
    /// Only if the cipher refuses the input length.
    pub fn seal(self, key: &DataKey, nonce: [u8; 24]) -> Result<Sealed, FormatError> {
        let cipher = record_cipher(key, &nonce, &self.header)?;
        let mut body = Vec::with_capacity(self.body.len() + SEAL_OVERHEAD);
        body.push(SUITE_AES_256_GCM);
        body.extend_from_slice(&nonce);
        body.extend_from_slice(&self.body);
        let aad = Aad::from(self.header.encode());
        let zero = Nonce::assume_unique_for_key([0; 12]);
        let tag = cipher
            .seal_in_place_separate_tag(zero, aad, &mut body[25..])
            .map_err(|_| FormatError::Invalid("payload too long to seal"))?;
        body.extend_from_slice(tag.as_ref());
        Ok(Sealed { header: self.header, body: Bytes::from(body) })
    }
}

impl Sealed {
    /// Opens the seal; the content is still to be checked with [`Compressed::open`].
    ///
    /// # Errors
    /// [`FormatError::Mismatch`] when header or body were changed, or the key is another.
    pub fn unseal(&self, key: &DataKey) -> Result<Compressed, FormatError> {
        if self.body.len() < SEAL_OVERHEAD {
            return Err(FormatError::Truncated("sealed body"));
        }
        if self.body[0] != SUITE_AES_256_GCM {
            return Err(FormatError::Unknown { what: "suite", value: u64::from(self.body[0]) });
        }
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&self.body[1..25]);
        let cipher = record_cipher(key, &nonce, &self.header)?;
        let mut body = self.body[25..].to_vec();
        let aad = Aad::from(self.header.encode());
        let zero = Nonce::assume_unique_for_key([0; 12]);
        let len =
            cipher.open_in_place(zero, aad, &mut body).map_err(|_| FormatError::Mismatch("seal"))?.len();
        body.truncate(len);
        Ok(Compressed { header: self.header.clone(), body: Bytes::from(body) })
    }
}

fn record_cipher(key: &DataKey, nonce: &[u8; 24], header: &Header) -> Result<LessSafeKey, FormatError> {
    let record = key.record_key(nonce, SUITE_AES_256_GCM, &header.id, header.compressor as u8);
    let unbound = UnboundKey::new(&AES_256_GCM, &record).map_err(|_| FormatError::Invalid("key length"))?;
    Ok(LessSafeKey::new(unbound))
}
