//! Questions about what contents that are there are like, and their answers, as they travel.

use std::iter::zip;

use backhaul_object::header::PLAIN_MAX;
use backhaul_object::patch;
use backhaul_object::signature::{BlockHash, Signature, blocks_of};
use backhaul_object::source::{Kin, Spot};
use backhaul_object::{ObjectId, Reference};
use bytes::Bytes;

use crate::{BATCH_MAX, SessionError, wire};

/// Bytes of contents whose signatures go into one frame at most: so it has 400 KiB of them.
pub const SIGNED_MAX: usize = 32 << 20;
/// Bytes of a block's hashes.
const HASH_LEN: usize = 12;

/// A question as it travels.
pub(crate) fn question(batch: u64, spots: &[Spot]) -> wire::Sign {
    wire::Sign {
        batch,
        ids: spots.iter().map(|spot| Bytes::copy_from_slice(spot.object.as_bytes())).collect(),
        members: spots.iter().map(|spot| spot.member.map_or(0, |member| u32::from(member) + 1)).collect(),
    }
}

/// What is asked about.
///
/// # Errors
/// The question is malformed, or asks for too much.
pub(crate) fn spots(sign: &wire::Sign) -> Result<Vec<Spot>, SessionError> {
    const WRONG: SessionError = SessionError::Protocol("malformed or too many contents to describe");
    if sign.ids.is_empty() || sign.ids.len() > BATCH_MAX || sign.ids.len() != sign.members.len() {
        return Err(WRONG);
    }
    let spot = |(id, member): (&Bytes, &u32)| {
        let object = ObjectId::try_from(&id[..]).map_err(|_| WRONG)?;
        let member = member.checked_sub(1).map(u16::try_from).transpose().map_err(|_| WRONG)?;
        Ok(Spot { object, member })
    };
    zip(&sign.ids, &sign.members).map(spot).collect()
}

/// An answer as it travels.
pub(crate) fn answer(batch: u64, kin: &[Kin]) -> wire::Signatures {
    let signed = |Kin { of, base, signature }: &Kin| {
        let mut blocks = Vec::with_capacity(signature.blocks.len() * HASH_LEN);
        for BlockHash { weak, strong } in &signature.blocks {
            blocks.extend_from_slice(&weak.to_le_bytes());
            blocks.extend_from_slice(&strong.to_le_bytes());
        }
        wire::Signed {
            of: *of as u32,
            base: Bytes::copy_from_slice(base.id.as_bytes()),
            members: patch::members_of(base).unwrap_or_default() as u32,
            at: signature.at as u32,
            length: signature.len as u32,
            blocks: blocks.into(),
        }
    };
    wire::Signatures { batch, signed: kin.iter().map(signed).collect() }
}

/// What an answer says about so many contents.
///
/// # Errors
/// It is malformed.
pub(crate) fn kin(signatures: wire::Signatures, asked: usize) -> Result<Vec<Kin>, SessionError> {
    let mut last = 0;
    let one = |signed: wire::Signed| {
        let of = std::mem::replace(&mut last, signed.of as usize);
        let is_in_order = of <= signed.of as usize && (signed.of as usize) < asked;
        is_in_order.then(|| read(&signed)).flatten()
    };
    let kin = signatures.signed.into_iter().map(one).collect::<Option<Vec<_>>>();
    kin.ok_or(SessionError::Protocol("malformed signatures"))
}

fn read(signed: &wire::Signed) -> Option<Kin> {
    let id = ObjectId::try_from(&signed.base[..]).ok()?;
    let base: Reference = match signed.members {
        0 => patch::base(id),
        members => patch::base_of_members(id, members as usize)?,
    };
    let (at, len) = (signed.at as usize, signed.length as usize);
    let (hashes, rest) = signed.blocks.as_chunks::<HASH_LEN>();
    if len == 0 || at + len > PLAIN_MAX || hashes.len() != blocks_of(len) || !rest.is_empty() {
        return None;
    }
    let hash = |raw: &[u8; HASH_LEN]| {
        let [a, b, c, d, strong @ ..] = *raw;
        BlockHash { weak: u32::from_le_bytes([a, b, c, d]), strong: u64::from_le_bytes(strong) }
    };
    let signature = Signature { at, blocks: hashes.iter().map(hash).collect(), len };
    Some(Kin { of: signed.of as usize, base, signature })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn id(n: u8) -> ObjectId {
        ObjectId([n; 32])
    }

    fn some() -> Vec<Kin> {
        let blocks = |n: u64| (0..n).map(|i| BlockHash { weak: i as u32, strong: i << 40 | 7 }).collect();
        let signature = |at, len| Signature { at, blocks: blocks(blocks_of(len) as u64), len };
        vec![
            Kin { of: 0, base: patch::base(id(1)), signature: signature(0, 3_000) },
            Kin { of: 2, base: patch::base_of_members(id(2), 9).unwrap(), signature: signature(77, 1) },
            Kin {
                of: 2,
                base: patch::base_of_members(id(3), 1_023).unwrap(),
                signature: signature(5, 1_024),
            },
        ]
    }

    #[test]
    fn questions_and_answers_arrive_as_they_were_sent() {
        let asked = [Spot { object: id(1), member: None }, Spot { object: id(2), member: Some(0) }];
        assert_eq!(spots(&question(7, &asked)).unwrap(), asked);
        assert_eq!(kin(answer(7, &some()), 3).unwrap(), some());
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let sign = question(1, &[Spot { object: id(1), member: Some(65_535) }]);
        assert_eq!(spots(&sign).unwrap()[0].member, Some(65_535));
        let wrong = |change: &dyn Fn(&mut wire::Sign)| {
            let mut sign = sign.clone();
            change(&mut sign);
            assert!(spots(&sign).is_err());
        };
        wrong(&|sign| sign.members[0] = 65_537);
        wrong(&|sign| sign.members.push(0));
        wrong(&|sign| sign.ids[0] = Bytes::from_static(b"short"));
        wrong(&|sign| *sign = wire::Sign::default());
        wrong(&|sign| {
            sign.ids = vec![sign.ids[0].clone(); BATCH_MAX + 1];
            sign.members = vec![0; BATCH_MAX + 1];
        });
        let wrong = |change: &dyn Fn(&mut wire::Signatures)| {
            let mut answer = answer(1, &some());
            change(&mut answer);
            assert!(kin(answer, 3).is_err());
        };
        wrong(&|answer| answer.signed[2].of = 3);
        wrong(&|answer| answer.signed[2].of = 1);
        wrong(&|answer| answer.signed[0].length = 0);
        wrong(&|answer| answer.signed[0].length = 4_000);
        wrong(&|answer| answer.signed[0].at = u32::MAX);
        wrong(&|answer| answer.signed[0].members = 1_024);
        wrong(&|answer| answer.signed[1].blocks = Bytes::from_static(b"half a hash"));
    }
}
