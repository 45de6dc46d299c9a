//! The server's own backup: what it is besides the vault, sealed, in the vault's directory.
//!
//! An export (docs/format.md, "Exports") holds CA and certificates, the fleet database and the config. It is sealed by a
//! key that follows from the vault key, and carries the vault key wrapped by the recovery key: so whoever has the
//! data directory and the recovery key has the server, and nobody else has. [`shelf`] keeps the last few of
//! them, [`look`] looks whether they are whole, [`recover`] stands a server up again from one.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::PoisonError;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use backhaul_object::codec::{FormatError, Reader, Write};
use backhaul_object::ids::VaultId;
use backhaul_object::keys::VaultKey;
use backhaul_object::small_file::{SmallFile, summed};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::chores::{Outcome, Tools};
use crate::error::ServerError;
use crate::home::ServerHome;
use crate::keyring::random;

pub mod look;
pub mod recover;
pub mod shelf;
mod wrap;

const KIND: SmallFile = SmallFile { what: "export", magic: b"BHEX", version: 1 };
/// Longest keyring, and longest content of an export.
const KEYRING_MAX: usize = 4_096;
const CONTENT_MAX: usize = 1 << 30;
const FILES_MAX: usize = 1_000;
const NAME_MAX: usize = 255;
const LEVEL: i32 = 3;

/// A file of the server's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path below the server's directory, with `/`.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// An export that is not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The vault that it lies in.
    pub vault: VaultId,
    /// When it was made, seconds since 1970.
    pub made_at: u64,
    /// The vault key, wrapped.
    pub keyring: Vec<u8>,
    nonce: [u8; 24],
    sealed: Vec<u8>,
}

impl Export {
    /// Seals files; `nonce` is random, and never used twice.
    ///
    /// # Errors
    /// They are too large.
    pub fn seal(
        head: (VaultId, u64, Vec<u8>),
        files: &[File],
        key: &VaultKey,
        nonce: [u8; 24],
    ) -> Result<Self, ServerError> {
        let (vault, made_at, keyring) = head;
        let mut plain = Vec::new();
        plain.put_varint(files.len() as u64);
        for file in files {
            plain.put_bytes(file.name.as_bytes());
            plain.put_bytes(&file.content);
        }
        if plain.len() > CONTENT_MAX {
            return Err(ServerError::Broken("the server's own files are larger than 1 GiB".to_owned()));
        }
        let mut sealed =
            zstd::bulk::compress(&plain, LEVEL).map_err(|e| ServerError::Broken(e.to_string()))?;
        let mut export = Self { vault, made_at, keyring, nonce, sealed: Vec::new() };
        cipher(key, &nonce)?
            .seal_in_place_append_tag(zero(), Aad::from(export.head()), &mut sealed)
            .map_err(|_| ServerError::Random)?;
        export.sealed = sealed;
        Ok(export)
    }

    /// Opens it.
    ///
    /// # Errors
    /// Another key, or what is in it makes no sense.
    pub fn open(&self, key: &VaultKey) -> Result<Vec<File>, ServerError> {
        let mut sealed = self.sealed.clone();
        let opened = cipher(key, &self.nonce)?.open_in_place(zero(), Aad::from(self.head()), &mut sealed);
        let opened = opened.map_err(|_| FormatError::Mismatch("seal of the export"))?;
        let malformed = |_| FormatError::Invalid("contents of the export");
        let mut plain = Vec::new();
        let stream = zstd::stream::Decoder::new(&*opened).map_err(malformed)?;
        stream.take(CONTENT_MAX as u64 + 1).read_to_end(&mut plain).map_err(malformed)?;
        let mut r = Reader::new(&plain);
        let count = r.varint("files")?;
        if count > FILES_MAX as u64 {
            return Err(FormatError::Invalid("files of the export").into());
        }
        let mut files = Vec::new();
        for _ in 0..count {
            let name = r.bytes("name", NAME_MAX)?;
            let name = std::str::from_utf8(name).map_err(|_| FormatError::Invalid("name"))?.to_owned();
            let plain_name = |part: &str| !matches!(part, "" | "." | "..");
            if !name.split('/').all(plain_name) {
                return Err(FormatError::Invalid("name of a file").into());
            }
            files.push(File { name, content: r.bytes("content", CONTENT_MAX)?.to_vec() });
        }
        r.finish()?;
        Ok(files)
    }

    fn head(&self) -> Vec<u8> {
        let mut out = KIND.begin();
        out.extend_from_slice(self.vault.as_bytes());
        out.put_varint(self.made_at);
        out.put_bytes(&self.keyring);
        out.extend_from_slice(&self.nonce);
        out
    }

    /// Canonical bytes, ending in a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.head();
        out.put_bytes(&self.sealed);
        summed(out)
    }

    /// Reads an export.
    ///
    /// # Errors
    /// Truncated, changed, or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = KIND.open(bytes)?;
        let (vault, made_at) = vault_and_time(&mut r)?;
        let keyring = r.bytes("keyring", KEYRING_MAX)?.to_vec();
        let nonce = r.array("nonce")?;
        let sealed = r.bytes("contents", CONTENT_MAX)?.to_vec();
        r.finish()?;
        Ok(Self { vault, made_at, keyring, nonce, sealed })
    }
}

/// What an export begins with: of which vault it is, and when it was made.
fn origin(r: &mut Reader<'_>) -> Result<(VaultId, u64), FormatError> {
    KIND.head(r)?;
    vault_and_time(r)
}

fn vault_and_time(r: &mut Reader<'_>) -> Result<(VaultId, u64), FormatError> {
    Ok((VaultId(r.array("vault")?), r.varint("server time")?))
}

/// The key of one export: it is used once, so that the nonce of the cipher can be zero.
fn cipher(key: &VaultKey, nonce: &[u8; 24]) -> Result<LessSafeKey, ServerError> {
    let key = blake3::keyed_hash(&key.export_key(), nonce);
    UnboundKey::new(&AES_256_GCM, key.as_bytes()).map(LessSafeKey::new).map_err(|_| ServerError::Random)
}

fn zero() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// An export is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {}

pub(crate) fn carry_out(tools: &mut Tools<'_>) -> Result<Outcome, ServerError> {
    // A check may ask for one beside the night's: each has its number, and the copy of the database one place.
    let _alone = tools.vault.exporting.lock().unwrap_or_else(PoisonError::into_inner);
    let digest = tools.fleet.essence()?;
    let files = collect(tools.home, tools.fleet)?;
    let key = tools.home.vault_key()?;
    let keyring = wrap::whole_keyring(tools)?;
    let head = (tools.vault.vault.descriptor().vault, tools.now, keyring);
    let bytes = Export::seal(head, &files, &key, random()?)?.encode();
    let kept = shelf::put(tools.vault.vault.dir(), &bytes)?;
    tools.fleet.note_exported(&digest)?;
    let clients = tools.fleet.clients()?.len();
    let words =
        format!("CA, keys, config, policies and clients ({clients}) exported to {}", kept.path.display());
    let document = json!({
        "path": kept.path, "number": kept.number, "bytes": bytes.len(), "clients": clients, "kept": kept.count,
    });
    Ok(Outcome { words, document })
}

/// What the server is, besides the vault and its keys.
fn collect(home: &ServerHome, fleet: &crate::fleet::Fleet) -> Result<Vec<File>, ServerError> {
    let failed =
        |path: &Path, error: std::io::Error| ServerError::File { path: path.into(), why: error.to_string() };
    let mut names = vec!["config.toml".to_owned()];
    let tls = home.dir().join("tls");
    for entry in fs::read_dir(&tls).map_err(|error| failed(&tls, error))? {
        let entry = entry.map_err(|error| failed(&tls, error))?;
        names.push(format!("tls/{}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let mut files = Vec::new();
    for name in names.into_iter().filter(|name| !name.ends_with(".tmp")) {
        let path = home.dir().join(&name);
        files.push(File { name, content: fs::read(&path).map_err(|error| failed(&path, error))? });
    }
    let copy = home.dir().join("fleet.export");
    fleet.copy_to(&copy)?;
    let content = fs::read(&copy).map_err(|error| failed(&copy, error));
    fs::remove_file(&copy).map_err(|error| failed(&copy, error))?;
    files.push(File { name: recover::FLEET.to_owned(), content: content? });
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn file(name: &str, content: &[u8]) -> File {
        File { name: name.to_owned(), content: content.to_vec() }
    }

    /// `BLESS=1` writes the vector anew, which is a change of the format.
    #[test]
    fn an_export_is_what_the_specification_says() {
        let key = VaultKey::new(*b"0123456789abcdef0123456789abcdef");
        let files = [file("config.toml", b"listen = \"0.0.0.0:4455\"\n"), file("tls/ca.key", &[7; 40])];
        let head = (VaultId([1; 16]), 1_700_000_000, b"BHKR\x01wraps".to_vec());
        let export = Export::seal(head, &files, &key, [9; 24]).unwrap();
        let bytes = export.encode();
        assert_eq!(Export::decode(&bytes).unwrap().open(&key).unwrap(), files);
        assert!(export.open(&VaultKey::new([0; 32])).is_err(), "another key");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Export::decode(&changed).is_err() && Export::decode(&bytes[..at]).is_err(), "byte {at}");
        }
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("export = {hex}\n");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/vectors/export.txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_name_that_leads_out_is_refused() {
        let key = VaultKey::new([3; 32]);
        for name in ["../x", "/etc/passwd", "tls//x", "tls/..", ""] {
            let export =
                Export::seal((VaultId([1; 16]), 0, Vec::new()), &[file(name, b"")], &key, [1; 24]).unwrap();
            assert!(export.open(&key).is_err(), "{name}");
        }
    }
}
