//! The one-time join code: where the server is, how to know it, and the secret to be known by.
//!
//! `bh1-` and base32 (RFC 4648 alphabet, lower case, no padding) of: version 1, expiry (varint seconds),
//! CA pin (16), secret (16), client name, addresses; then 4 bytes of BLAKE3 over all that.

use std::fmt;
use std::str::FromStr;

use backhaul_object::codec::{FormatError, Reader, Write};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::authority::Pin;

const PREFIX: &str = "bh1-";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const VERSION: u8 = 1;
const ADDRESSES_MAX: usize = 16;
const SUM_LEN: usize = 4;
const CONTEXT_INVITATION: &str = "backhaul v1 join invitation";
const CONTEXT_PROOF: &str = "backhaul v1 join proof";

/// The secret of an invitation.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(pub [u8; 16]);

impl Secret {
    /// By what the server finds the invitation; does not reveal the secret.
    pub fn invitation(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::derive_key(CONTEXT_INVITATION, &self.0)[..16]);
        id
    }

    /// The key by which a request is authenticated; all of the secret that the server keeps.
    pub fn proof_key(&self) -> [u8; 32] {
        blake3::derive_key(CONTEXT_PROOF, &self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A join code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinCode {
    /// Seconds since 1970 after which the server refuses it.
    pub expires_at: u64,
    /// The server's CA.
    pub pin: Pin,
    /// The secret.
    pub secret: Secret,
    /// The client's name.
    pub client: String,
    /// `HOST:PORT`, to be tried in this order.
    pub addresses: Vec<String>,
}

/// Why a text is no join code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JoinCodeError {
    /// It begins otherwise.
    #[error("this is no join code: a join code begins with {PREFIX}")]
    Prefix,
    /// It has a character that no join code has.
    #[error("the join code has the character {0:?}, which no join code has: copy it again")]
    Character(char),
    /// Its checksum does not fit.
    #[error("the join code is incomplete or mistyped: copy it again, whole")]
    Checksum,
    /// It is whole but of a newer kind.
    #[error("the join code cannot be read by this version: {0}")]
    Format(#[from] FormatError),
}

impl fmt::Display for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = vec![VERSION];
        out.put_varint(self.expires_at);
        out.extend_from_slice(&self.pin);
        out.extend_from_slice(&self.secret.0);
        out.put_bytes(self.client.as_bytes());
        out.put_varint(self.addresses.len() as u64);
        self.addresses.iter().for_each(|address| out.put_bytes(address.as_bytes()));
        let sum = blake3::hash(&out);
        out.extend_from_slice(&sum.as_bytes()[..SUM_LEN]);
        write!(f, "{PREFIX}{}", base32(&out))
    }
}

impl FromStr for JoinCode {
    type Err = JoinCodeError;

    fn from_str(text: &str) -> Result<Self, JoinCodeError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(JoinCodeError::Prefix)?;
        let raw = unbase32(body)?;
        let split = raw.len().checked_sub(SUM_LEN).ok_or(JoinCodeError::Checksum)?;
        let (content, sum) = raw.split_at(split);
        if blake3::hash(content).as_bytes()[..SUM_LEN] != *sum {
            return Err(JoinCodeError::Checksum);
        }
        let mut r = Reader::new(content);
        let version = r.u8("version")?;
        if version != VERSION {
            return Err(FormatError::Unknown { what: "join code version", value: u64::from(version) }.into());
        }
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|_| FormatError::Invalid("join code text is not UTF-8"))
        };
        let expires_at = r.varint("expiry")?;
        let pin = r.array("pin")?;
        let secret = Secret(r.array("secret")?);
        let client = text(r.bytes("name", 255)?)?;
        let count = r.count("addresses", ADDRESSES_MAX)?;
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            addresses.push(text(r.bytes("address", 255)?)?);
        }
        r.finish()?;
        Ok(Self { expires_at, pin, secret, client, addresses })
    }
}

fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(ALPHABET[(buffer >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        out.push(char::from(ALPHABET[(buffer << (5 - bits) & 31) as usize]));
    }
    out
}

fn unbase32(text: &str) -> Result<Vec<u8>, JoinCodeError> {
    let (mut out, mut buffer, mut bits) = (Vec::with_capacity(text.len() * 5 / 8), 0u32, 0);
    for letter in text.chars() {
        let value = ALPHABET.iter().position(|known| char::from(*known) == letter.to_ascii_lowercase());
        buffer = buffer << 5 | value.ok_or(JoinCodeError::Character(letter))? as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push((buffer >> bits) as u8);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn sample() -> JoinCode {
        JoinCode {
            expires_at: 1_800_000_000,
            pin: [3; 16],
            secret: Secret([5; 16]),
            client: "desk-01".to_owned(),
            addresses: vec!["backup.example:4455".to_owned(), "[::1]:4455".to_owned()],
        }
    }

    #[test]
    fn reads_back_what_it_shows_in_either_case() {
        let text = sample().to_string();
        assert_eq!(text.parse::<JoinCode>().unwrap(), sample());
        let upper = format!("bh1-{}", text[4..].to_uppercase());
        assert_eq!(format!(" {upper}\n").parse::<JoinCode>().unwrap(), sample());
    }

    #[test]
    fn every_truncation_and_every_changed_letter_is_noticed() {
        let text = sample().to_string();
        for end in 0..text.len() {
            assert!(text[..end].parse::<JoinCode>().is_err(), "{end}");
        }
        for at in 4..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(changed.parse::<JoinCode>(), Err(JoinCodeError::Checksum), "{at}");
        }
        assert_eq!("bh1-a!".parse::<JoinCode>(), Err(JoinCodeError::Character('!')));
    }
}
