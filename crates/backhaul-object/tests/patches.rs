//! Patches: what is found as a difference makes the same chunk again, and what somebody made up makes nothing else.
#![allow(clippy::unwrap_used, reason = "tests")]

use backhaul_object::bundle::{BundleBuilder, Cutter};
use backhaul_object::codec::Write;
use backhaul_object::header::{PLAIN_MAX, Reference};
use backhaul_object::keys::{IdKey, VaultKey};
use backhaul_object::patch::{self, BASES_MAX, Program, Writing};
use backhaul_object::seal::{Packer, Unpacker, identify_content};
use backhaul_object::signature::{BLOCK, Signature, SignatureKey, blocks_of};
use backhaul_object::{Compressed, FormatError, Header, Kind, Object, ObjectId};
use bytes::Bytes;
use proptest::prelude::*;

fn key() -> VaultKey {
    VaultKey::new([9; 32])
}

fn signatures() -> SignatureKey {
    SignatureKey::new(&key().chunker_key())
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn id_of(content: &[u8]) -> ObjectId {
    identify_content(&key().id_key(), content).0
}

/// A patch as an agent sends it.
fn sent(content: &[u8], payload: Vec<u8>, bases: &[&[u8]]) -> Compressed {
    let (id, proof) = identify_content(&key().id_key(), content);
    let references: Vec<Reference> = bases.iter().map(|base| patch::base(id_of(base))).collect();
    let object = Object { kind: Kind::Patch, references, provides: vec![], payload: Bytes::from(payload) };
    object.compress_as(id, proof, &mut Packer::new(3).unwrap()).unwrap()
}

fn rebuilt(patch: &Compressed, bases: &[&[u8]]) -> Result<Object, FormatError> {
    let key: IdKey = key().id_key();
    patch::rebuild(patch, &key, &mut Unpacker::new().unwrap(), &mut |wanted, _| {
        let base = bases.iter().find(|base| id_of(base) == wanted.id).unwrap();
        Ok::<_, FormatError>(Bytes::copy_from_slice(base))
    })
}

/// Finds the difference and makes the content again; how many literal bytes that took.
fn round(bases: &[&[u8]], content: &[u8]) -> Option<usize> {
    let signatures = signatures();
    let signed: Vec<_> = bases.iter().map(|base| signatures.sign(base)).collect();
    let (program, used) = signatures.difference(&signed, content, content.len())?;
    let used: Vec<&[u8]> = used.iter().map(|n| bases[*n]).collect();
    let literals = program.literals();
    let patch = sent(content, program.encode(), &used);
    assert_eq!(Header::decode(&patch.header.encode()).unwrap(), patch.header);
    let chunk = rebuilt(&patch, &used).unwrap();
    assert_eq!((chunk.kind, &chunk.payload[..]), (Kind::Chunk, content));
    assert_eq!(patch.header.id, id_of(content));
    Some(literals)
}

#[test]
fn a_page_that_changed_costs_that_page_and_its_neighbours() {
    let base = noise(1, 300_000);
    let mut content = base.clone();
    content[100_000..104_096].copy_from_slice(&noise(2, 4_096));
    let literals = round(&[&base], &content).unwrap();
    assert!((4_096..4_096 + 2 * BLOCK).contains(&literals), "{literals}");
}

#[test]
fn what_was_shifted_is_found_at_every_byte_and_the_short_end_with_it() {
    let base = noise(1, 50_123);
    let content = [&noise(2, 77)[..], &base].concat();
    assert_eq!(round(&[&base], &content), Some(77));
    let (first, second) = base.split_at(20_001);
    assert_eq!(round(&[second, first], &[first, second].concat()), Some(0), "over the border of two bases");
}

#[test]
fn what_is_all_new_is_no_patch_and_neither_is_what_is_too_much_so() {
    let signatures = signatures();
    let base = signatures.sign(&noise(1, 100_000));
    assert_eq!(round(&[&noise(1, 100_000)], &noise(2, 100_000)), None);
    let content = [&noise(1, 100_000)[..50_176], &noise(3, 50_176)].concat();
    assert!(signatures.difference(std::slice::from_ref(&base), &content, 50_176).is_some());
    assert!(signatures.difference(std::slice::from_ref(&base), &content, 50_175).is_none());
    assert!(signatures.difference(&[], &content, content.len()).is_none());
    assert!(signatures.difference(&[base], &[], 0).is_none());
}

#[test]
fn signatures_have_a_hash_a_block_and_depend_on_the_vault() {
    let content = noise(4, 3 * BLOCK + 1);
    let signed = signatures().sign(&content);
    assert_eq!((signed.blocks.len(), blocks_of(content.len()), signed.len), (4, 4, content.len()));
    let other = SignatureKey::new(&VaultKey::new([8; 32]).chunker_key());
    assert!(signed.blocks.iter().zip(other.sign(&content).blocks).all(|(a, b)| a.strong != b.strong));
    let zeros = signatures().sign(&[0; 2 * BLOCK + 5]);
    assert_eq!(zeros.blocks[0], zeros.blocks[1]);
    assert_ne!(zeros.blocks[1].strong, zeros.blocks[2].strong, "a short block is no whole one");
}

#[test]
fn another_base_of_the_same_id_makes_nothing_and_no_patch_is_opened_as_if_it_were_whole() {
    let (base, mut content) = (noise(1, 9_000), noise(1, 9_000));
    content[5] ^= 1;
    let signatures = signatures();
    let (program, _) = signatures.difference(&[signatures.sign(&base)], &content, content.len()).unwrap();
    let patch = sent(&content, program.encode(), &[&base]);
    let lie = |wanted: &Reference, _: &mut Unpacker| {
        assert_eq!(wanted.id, id_of(&base));
        Ok::<_, FormatError>(Bytes::from(noise(7, 9_000)))
    };
    let (key, mut unpacker) = (key().id_key(), Unpacker::new().unwrap());
    let made = patch::rebuild(&patch, &key, &mut unpacker, &mut { lie });
    assert_eq!(made.unwrap_err(), FormatError::Mismatch("what the patch makes"));
    assert!(matches!(patch.open(&key, &mut unpacker), Err(FormatError::Invalid(_))));
}

fn payload(len: u64, steps: &[(u64, &[i64])], literals: &[u8]) -> Bytes {
    let mut out = Vec::new();
    out.put_varint(len);
    for (word, rest) in steps {
        out.put_varint(*word);
        if let [base, at] = rest {
            out.put_varint(*base as u64);
            out.put_signed(*at);
        }
    }
    out.extend_from_slice(literals);
    Bytes::from(out)
}

#[test]
fn programs_that_lie_are_refused_before_anything_is_made_of_them() {
    let copy = |len: u64| len << 1 | 1;
    let refused = |payload: Bytes, bases| {
        assert!(Program::decode(&payload, bases).is_err(), "{payload:?}");
    };
    assert!(Program::decode(&payload(8, &[(copy(5), &[0, 0]), (3 << 1, &[])], b"abc"), 1).is_ok());
    refused(payload(8, &[(copy(9), &[0, 0])], b""), 1);
    refused(payload(8, &[(copy(5), &[0, 0]), (3 << 1, &[])], b"ab"), 1);
    refused(payload(8, &[(copy(5), &[0, 0]), (3 << 1, &[])], b"abcd"), 1);
    refused(payload(8, &[(copy(5), &[0, -1]), (3 << 1, &[])], b"abc"), 1);
    refused(payload(8, &[(copy(8), &[0, PLAIN_MAX as i64])], b""), 1);
    refused(payload(8, &[(copy(8), &[0, i64::MAX])], b""), 1);
    refused(payload(8, &[(copy(8), &[1, 0])], b""), 1);
    refused(payload(8, &[(copy(8), &[0, 0])], b""), 0);
    refused(payload(8, &[(copy(8), &[0, 0])], b""), 2);
    refused(payload(8, &[(copy(0), &[0, 0]), (copy(8), &[0, 0])], b""), 1);
    refused(payload(8, &[(copy(4), &[0, 0]), (copy(4), &[0, 0])], b""), 1);
    refused(payload(8, &[(copy(4), &[0, 0]), (2 << 1, &[]), (2 << 1, &[])], b"abcd"), 1);
    refused(payload(PLAIN_MAX as u64 + 1, &[(copy(PLAIN_MAX as u64), &[0, 0])], b""), 1);
    // A few bytes that would be many steps: the end of the payload is met first.
    refused(payload(PLAIN_MAX as u64, &[(copy(1), &[0, 0])], b""), 1);
    let many: Vec<(u64, &[i64])> =
        (0..70_000).map(|i| (copy(1), if i % 2 == 0 { &[0, 5][..] } else { &[0, -4][..] })).collect();
    refused(payload(70_000, &many, b""), 1);
}

#[test]
fn headers_of_patches_name_bases_each_once_and_nothing_else() {
    let base = |n: u8| patch::base(ObjectId([n; 32]));
    let decode = |references: Vec<Reference>| {
        let patch = sent(b"x", vec![], &[b"y"]);
        Header::decode(&Header { references, ..patch.header }.encode()).map(drop)
    };
    assert!(decode(vec![base(1), base(2)]).is_ok());
    assert!(decode(vec![]).is_err());
    assert!(decode(vec![base(1), base(1)]).is_err());
    assert!(decode((0..=BASES_MAX as u8).map(base).collect()).is_err());
    assert!(decode(vec![Reference::whole(ObjectId([1; 32]))]).is_err());
    let marked = |members: &[u8]| Reference { id: ObjectId([1; 32]), members: members.to_vec() };
    assert!(decode(vec![marked(&[3])]).is_err() && decode(vec![marked(&[1, 4])]).is_err());
    let of_members = |n| patch::base_of_members(ObjectId([1; 32]), n);
    for members in [1, 7, 8, 300, 1_023] {
        let base = of_members(members).unwrap();
        assert_eq!(patch::members_of(&base), Some(members));
        assert!(decode(vec![base]).is_ok());
    }
    assert_eq!(of_members(1_024), None);
}

/// Of a bundle the members' contents are copied from, one after the other, whichever they are in.
#[test]
fn a_bundle_is_a_base_if_it_is_marked_as_what_it_is_and_has_all_its_members() {
    let (key, members) = (key().id_key(), [noise(1, 5_000), noise(2, 4_000)]);
    let mut builder = BundleBuilder::default();
    for member in &members {
        let (id, proof) = identify_content(&key, member);
        builder.push(id, proof, member);
    }
    let bundle = builder.finish();
    let id = bundle.identify(&key).0;
    let mut content = members.concat()[3_000..7_500].to_vec();
    content.extend_from_slice(b"and more");
    let signature = Signature { at: 3_000, ..signatures().sign(&content[..4_500]) };
    let (program, _) = signatures().difference(&[signature], &content, 100).unwrap();
    assert_eq!(program.stretches(1), std::slice::from_ref(&(3_000..7_500)));
    let of = |members| {
        let references = vec![patch::base_of_members(id, members).unwrap()];
        let payload = Bytes::from(program.encode());
        let object = Object { kind: Kind::Patch, references, provides: vec![], payload };
        let (id, proof) = identify_content(&key, &content);
        object.compress_as(id, proof, &mut Packer::new(3).unwrap()).unwrap()
    };
    let make = |patch: &Compressed, base: &Object| {
        let unpacker = &mut Unpacker::new().unwrap();
        patch::rebuild(patch, &key, unpacker, &mut |wanted, _| patch::substance(base, wanted))
    };
    assert_eq!(make(&of(2), &bundle).unwrap().payload[..], content[..]);
    for members in [1, 3] {
        assert!(matches!(make(&of(members), &bundle), Err(FormatError::Invalid(_))));
    }
    let stored = bundle.compress(&key, &mut Packer::new(3).unwrap()).unwrap();
    let part = Cutter::new().unwrap().part_of(&stored, &[1]).unwrap();
    let part = patch::unpack_base(&part, &mut Unpacker::new().unwrap()).unwrap();
    assert!(matches!(make(&of(2), &part), Err(FormatError::Invalid(_))));
}

/// An edit of a version.
#[derive(Debug, Clone)]
enum Edit {
    Overwrite(usize, usize, u64),
    Insert(usize, usize, u64),
    Remove(usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<usize>(), 1..6_000usize, any::<u64>())
            .prop_map(|(at, len, seed)| Edit::Overwrite(at, len, seed)),
        (any::<usize>(), 1..6_000usize, any::<u64>()).prop_map(|(at, len, seed)| Edit::Insert(at, len, seed)),
        (any::<usize>(), 1..6_000usize).prop_map(|(at, len)| Edit::Remove(at, len)),
    ]
}

fn edited(mut content: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let place = |at: usize| at % (content.len() + 1);
        match *edit {
            Edit::Overwrite(at, len, seed) => {
                let at = place(at);
                let end = content.len().min(at + len);
                content[at..end].copy_from_slice(&noise(seed, end - at));
            }
            Edit::Insert(at, len, seed) => {
                let at = place(at);
                content.splice(at..at, noise(seed, len));
            }
            Edit::Remove(at, len) => {
                let at = place(at);
                let end = content.len().min(at + len);
                content.drain(at..end);
            }
        }
    }
    content
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn versions_are_made_again_and_edits_cost_little_more_than_themselves(
        len in 0..120_000usize,
        cut in any::<usize>(),
        edits in proptest::collection::vec(edit(), 0..6),
        zeros: bool,
    ) {
        let base = if zeros { vec![0; len] } else { noise(5, len) };
        let content = edited(base.clone(), &edits);
        let (a, b) = base.split_at(cut % (base.len() + 1));
        if let Some(literals) = round(&[a, b], &content) {
            prop_assert!(literals <= content.len());
            if !zeros {
                prop_assert!(literals <= edits.len() * (6_000 + 2 * BLOCK) + 2 * BLOCK, "{}", literals);
            }
        }
    }

    #[test]
    fn what_is_accepted_is_canonical_and_what_is_not_is_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        bases in 0..10usize,
    ) {
        let payload = Bytes::from(bytes);
        if let Ok(program) = Program::decode(&payload, bases) {
            prop_assert_eq!(program.encode(), payload);
        }
    }

    #[test]
    fn a_program_survives_its_encoding(
        steps in proptest::collection::vec((0..3usize, 0..9_000usize, 1..500usize, any::<bool>()), 1..60),
    ) {
        let mut writing = Writing::default();
        for (base, at, len, is_copy) in steps {
            if is_copy { writing.copy(base, at, len) } else { writing.insert(&noise(at as u64, len)) }
        }
        let (program, used) = writing.finish(3);
        let payload = Bytes::from(program.encode());
        match Program::decode(&payload, used.len()) {
            Ok(again) => prop_assert_eq!(again, program),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
