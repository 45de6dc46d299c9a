//! The index against a plain map, with reopening in between.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use backhaul_object::header::Compressor;
use backhaul_object::{Kind, Proof};
use proptest::prelude::*;

use super::*;

fn header(seed: u64, members: usize) -> Header {
    let id = |n: u64| ObjectId(*blake3::hash(&n.to_le_bytes()).as_bytes());
    let provides = (0..members).map(|m| (id(seed * 1_000 + 7 + m as u64), Proof([m as u8; 16]))).collect();
    Header {
        kind: if members > 0 { Kind::Bundle } else { Kind::Chunk },
        id: id(seed),
        proof: Proof([seed as u8; 16]),
        compressor: Compressor::Raw,
        plain_len: 0,
        references: vec![],
        provides,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn finds_what_was_added_and_only_what_was_flushed(
        steps in proptest::collection::vec((0usize..4, any::<bool>()), 1..400)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::open(dir.path(), &Counts::default()).unwrap();
        let mut model: HashMap<ObjectId, (Ordinal, Location)> = HashMap::new();
        let mut flushed = Counts::default();
        for (i, (members, flush)) in steps.iter().enumerate() {
            let header = header(i as u64 + 1, *members);
            let at = Location { pack: i as u32, offset: 64, len: 100 };
            let edges: Vec<Edge> = (i > 0)
                .then(|| Edge { to: Ordinal(i as u64 - 1), members: vec![1] })
                .into_iter()
                .collect();
            let ordinal = index.append(&header, at, &edges).unwrap();
            prop_assert_eq!(index.edges(ordinal).unwrap(), edges);
            for (m, (id, _)) in header.provides.iter().enumerate() {
                let place = Place::Member { bundle: ordinal, bundle_id: header.id, member: m as u16 };
                let hit = Hit { id: id.short(), place };
                prop_assert!(index.find(id.prefix()).unwrap().contains(&hit));
            }
            model.insert(header.id, (ordinal, at));
            if *flush {
                index.flush().unwrap();
                flushed = index.counts().unwrap();
            }
        }
        let reopened = Index::open(dir.path(), &flushed).unwrap();
        for (id, (ordinal, at)) in model {
            prop_assert_eq!(index.ordinal(&id).unwrap(), Some(ordinal));
            prop_assert_eq!(index.location(ordinal).unwrap(), at);
            let expected = (ordinal.0 < flushed.objects).then_some(ordinal);
            prop_assert_eq!(reopened.ordinal(&id).unwrap(), expected);
        }
    }
}

#[test]
fn a_shortened_file_is_damage_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(dir.path(), &Counts::default()).unwrap();
    index.append(&header(1, 0), Location { pack: 1, offset: 64, len: 9 }, &[]).unwrap();
    index.flush().unwrap();
    std::fs::write(dir.path().join("places"), b"short").unwrap();
    let error = Index::open(dir.path(), &index.counts().unwrap()).err().unwrap().to_string();
    assert!(error.contains("places") && error.contains("--rebuild-index"), "{error}");
}
