//! The vault key at rest: wrapped by the server's master key, and by a recovery key kept elsewhere.
//!
//! File `keyring`: magic `BHKR`, version 1, then twice (master, recovery) a 12-byte nonce and the vault key
//! under AES-256-GCM with the wrapping key, with the magic and the position as additional data.

use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use backhaul_net::private_file;
use backhaul_object::FormatError;
use backhaul_object::keys::VaultKey;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::ServerError;

const MAGIC: &[u8; 5] = b"BHKR\x01";
const WRAP_LEN: usize = 12 + 32 + 16;
const MASTER_FILE: &str = "master.key";
const KEYRING_FILE: &str = "keyring";
/// The keyring before its recovery wrap was put right the last time.
pub const REPLACED: &str = "keyring.replaced";

/// A key that wraps.
#[derive(Zeroize, ZeroizeOnDrop)]
struct WrappingKey([u8; 32]);

/// The key that opens the vault when the server's own is lost. Shown once.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct RecoveryKey(WrappingKey);

impl RecoveryKey {
    /// 64 hexadecimal digits in groups of eight.
    pub fn words(&self) -> String {
        let hex: Vec<String> =
            self.0.0.chunks(4).map(|part| part.iter().map(|b| format!("{b:02x}")).collect()).collect();
        hex.join("-")
    }

    /// Reads what [`RecoveryKey::words`] wrote; dashes and white space count for nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'-').collect();
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(pairs) {
            // A sign would be a number, too.
            let hex = std::str::from_utf8(pair).ok().filter(|_| pair.iter().all(u8::is_ascii_hexdigit))?;
            *byte = u8::from_str_radix(hex, 16).ok()?;
        }
        Some(Self(WrappingKey(key)))
    }
}

/// Fills an array with random bytes.
///
/// # Errors
/// [`ServerError::Random`].
pub fn random<const N: usize>() -> Result<[u8; N], ServerError> {
    let mut out = [0; N];
    aws_lc_rs::rand::fill(&mut out).map_err(|_| ServerError::Random)?;
    Ok(out)
}

/// Makes a vault key and both wraps of it.
///
/// # Errors
/// No randomness, or the files cannot be written.
pub fn create(dir: &Path) -> Result<(VaultKey, RecoveryKey), ServerError> {
    let vault_key = VaultKey::new(random()?);
    let (master, recovery) = (WrappingKey(random()?), RecoveryKey(WrappingKey(random()?)));
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&wrap(&master, 0, &vault_key)?);
    out.extend_from_slice(&wrap(&recovery.0, 1, &vault_key)?);
    private_file::write(&dir.join(MASTER_FILE), &master.0)?;
    private_file::write(&file(dir), &out)?;
    Ok((vault_key, recovery))
}

/// The keyring as it is: both wraps, and nothing that opens them.
///
/// # Errors
/// The file cannot be read.
pub fn read(dir: &Path) -> Result<Vec<u8>, ServerError> {
    Ok(private_file::read(&file(dir))?)
}

/// The recovery key's wrap in a keyring. Nobody but who has that key can open it.
pub fn recovery_wrap(keyring: &[u8]) -> Option<&[u8]> {
    keyring.strip_prefix(MAGIC)?.chunks_exact(WRAP_LEN).nth(1)
}

/// What tells a wrap from a damaged one.
pub fn digest(wrap: &[u8]) -> [u8; 32] {
    *blake3::hash(wrap).as_bytes()
}

/// Where the keyring is.
pub fn file(dir: &Path) -> PathBuf {
    dir.join(KEYRING_FILE)
}

/// Puts the recovery key's wrap into the keyring again; the master key's stays, and what it was is kept beside it. Returns the
/// keyring as it is now.
///
/// # Errors
/// The keyring is none, or cannot be read or written.
pub fn restore(dir: &Path, wrap: &[u8]) -> Result<Vec<u8>, ServerError> {
    let keyring = read(dir)?;
    let master = keyring.get(..MAGIC.len() + WRAP_LEN).ok_or(FormatError::Invalid("keyring"))?;
    let out = [master, wrap].concat();
    // Should the other one have been right after all.
    private_file::write(&dir.join(REPLACED), &keyring)?;
    private_file::write(&file(dir), &out)?;
    Ok(out)
}

/// Opens the vault key of a keyring with the recovery key.
pub fn open_with_recovery(keyring: &[u8], key: &RecoveryKey) -> Option<VaultKey> {
    unwrap(&key.0, 1, keyring.strip_prefix(MAGIC)?)
}

/// Writes a keyring again with a master key of its own; the recovery key's wrap stays.
///
/// # Errors
/// The keyring is none, or the files cannot be written.
pub fn rewrap(dir: &Path, vault_key: &VaultKey, keyring: &[u8]) -> Result<(), ServerError> {
    let master = WrappingKey(random()?);
    let recovery = recovery_wrap(keyring).ok_or(FormatError::Invalid("keyring"))?;
    let out = [&MAGIC[..], &wrap(&master, 0, vault_key)?, recovery].concat();
    private_file::write(&dir.join(MASTER_FILE), &master.0)?;
    Ok(private_file::write(&file(dir), &out)?)
}

/// Opens the vault key with the master key.
///
/// # Errors
/// A file is missing, or the two do not belong together.
pub fn open(dir: &Path) -> Result<VaultKey, ServerError> {
    let path = dir.join(MASTER_FILE);
    let wrong = || ServerError::WrongKey { path: path.clone() };
    let master = private_file::read(&path)?.try_into().map(WrappingKey).map_err(|_| wrong())?;
    let bytes = private_file::read(&file(dir))?;
    let wraps = bytes.strip_prefix(MAGIC).ok_or_else(wrong)?;
    unwrap(&master, 0, wraps).ok_or_else(wrong)
}

fn cipher(key: &WrappingKey) -> Result<LessSafeKey, ServerError> {
    UnboundKey::new(&AES_256_GCM, &key.0).map(LessSafeKey::new).map_err(|_| ServerError::Random)
}

fn associated(position: u8) -> [u8; 6] {
    let mut out = [0; 6];
    out[..5].copy_from_slice(MAGIC);
    out[5] = position;
    out
}

fn wrap(key: &WrappingKey, position: u8, secret: &VaultKey) -> Result<Vec<u8>, ServerError> {
    let nonce: [u8; 12] = random()?;
    let mut body = secret.expose().to_vec();
    let aad = Aad::from(associated(position));
    let tag = cipher(key)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
        .map_err(|_| ServerError::Random)?;
    Ok([&nonce[..], &body, tag.as_ref()].concat())
}

fn unwrap(key: &WrappingKey, position: u8, wraps: &[u8]) -> Option<VaultKey> {
    let wrapped = wraps.chunks_exact(WRAP_LEN).nth(usize::from(position))?;
    let (nonce, body) = wrapped.split_at(12);
    let mut body = body.to_vec();
    let aad = Aad::from(associated(position));
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let plain = cipher(key).ok()?.open_in_place(nonce, aad, &mut body).ok()?;
    let key = <[u8; 32]>::try_from(&plain[..]).ok().map(VaultKey::new);
    body.zeroize();
    key
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn either_key_opens_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let (made, recovery) = create(dir.path()).unwrap();
        assert_eq!(open(dir.path()).unwrap().expose(), made.expose());
        let wraps = std::fs::read(dir.path().join(KEYRING_FILE)).unwrap();
        assert_eq!(unwrap(&recovery.0, 1, &wraps[5..]).unwrap().expose(), made.expose());
        assert!(unwrap(&recovery.0, 0, &wraps[5..]).is_none());
        assert_eq!(recovery.words().len(), 71);
        let typed = RecoveryKey::parse(&format!(" {}\n", recovery.words().to_uppercase())).unwrap();
        let keyring = read(dir.path()).unwrap();
        assert_eq!(open_with_recovery(&keyring, &typed).unwrap().expose(), made.expose());
        assert!(RecoveryKey::parse("0123").is_none() && RecoveryKey::parse(&"+1".repeat(32)).is_none());
        let other = tempfile::tempdir().unwrap();
        rewrap(other.path(), &made, &keyring).unwrap();
        assert_eq!(open(other.path()).unwrap().expose(), made.expose());
        assert!(open_with_recovery(&read(other.path()).unwrap(), &recovery).is_some());
        private_file::write(&dir.path().join(MASTER_FILE), &[7; 32]).unwrap();
        assert!(matches!(open(dir.path()), Err(ServerError::WrongKey { .. })));
    }
}
