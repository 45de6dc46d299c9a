//! Golden vectors of packs, their parity, and manifests. `BLESS=1` writes them anew, which is a change of the format.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::path::Path;

use backhaul_object::ids::{ClientId, PackId, SessionId, VaultId};
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::Packer;
use backhaul_object::{Kind, Object, ObjectId};
use backhaul_store::acknowledged::Acknowledged;
use backhaul_store::catalog::PackRow;
use backhaul_store::index::Location;
use backhaul_store::manifest::Manifest;
use backhaul_store::mark::{Mark, Nights, State};
use backhaul_store::pack::{self, Class, Head};
use backhaul_store::reclaim::condemned;
use backhaul_store::reclaim::fence::{Condemned, Fence};
use backhaul_store::reclaim::journal::Journal;
use backhaul_store::revived::Revived;
use backhaul_store::{Bits, Ordinal, parity};
use bytes::Bytes;

fn check(file: &str, lines: &[(&str, Vec<u8>)]) {
    let mut text = String::new();
    for (name, bytes) in lines {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{name} = {hex}").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/vectors").join(file);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{file}");
}

#[test]
fn reclaim_files() {
    let bits = |ranges: &[(u64, u64)]| {
        let mut bits = Bits::default();
        ranges.iter().for_each(|(from, to)| bits.add_range(*from..*to));
        bits
    };
    let condemned = vec![
        Condemned { epoch: 5, objects: bits(&[(7, 9), (300, 301)]) },
        Condemned { epoch: 6, objects: bits(&[(1_000, 70_000)]) },
    ];
    let fence = Fence::restore(7, condemned, bits(&[(0, 3), (100, 200)]), bits(&[(100, 200)]));
    let written = condemned::encode(&fence);
    let read = condemned::decode(&written).unwrap();
    assert_eq!(condemned::encode(&read), written);
    assert_eq!((read.epoch(), read.condemned()), (7, fence.condemned()));
    assert_eq!((read.gone(), read.leaving()), (fence.gone(), fence.leaving()));
    let row = PackRow {
        number: 9,
        name: Some(PackId([6; 32])),
        class: Class::Meta,
        session: SessionId([0; 16]),
        client: ClientId([3; 16]),
        bytes: 1_234,
        objects: 5,
    };
    let journal = Journal { generation: [4; 16], new: vec![row], old: vec![(7, PackId([8; 32]))] };
    let bytes = journal.encode();
    assert_eq!(Journal::decode(&bytes).unwrap(), journal);
    for at in 0..bytes.len().max(written.len()) {
        let change = |bytes: &[u8]| {
            let mut changed = bytes.to_vec();
            changed.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
            changed
        };
        assert!(at >= bytes.len() || Journal::decode(&change(&bytes)).is_err(), "byte {at}");
        assert!(at >= bytes.len() || Journal::decode(&bytes[..at]).is_err(), "byte {at}");
        assert!(at >= written.len() || condemned::decode(&change(&written)).is_err(), "byte {at}");
        assert!(at >= written.len() || condemned::decode(&written[..at]).is_err(), "byte {at}");
    }
    check("reclaim.txt", &[("condemned", written), ("journal", bytes)]);
}

#[test]
fn revived_places() {
    let at = |pack, offset, len| Location { pack, offset, len };
    let places = vec![(Ordinal(5), at(3, 64, 900)), (Ordinal(70_000), at(4, 1_000_000, 1))];
    let revived = Revived { generation: [4; 16], places };
    let bytes = revived.encode();
    assert_eq!(Revived::decode(&bytes).unwrap(), revived);
    check("revived.txt", &[("revived", bytes)]);
}

#[test]
fn acknowledged() {
    let noted = Acknowledged { generation: [4; 16], objects: 70_000 };
    let bytes = noted.encode();
    assert_eq!(Acknowledged::decode(&bytes).unwrap(), noted);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Acknowledged::decode(&changed).is_err() && Acknowledged::decode(&bytes[..at]).is_err());
    }
    check("acknowledged.txt", &[("acknowledged", bytes)]);
}

#[test]
fn pack_and_manifest() {
    let key = VaultKey::new(*b"0123456789abcdef0123456789abcdef");
    let payload = Bytes::from_static(b"the bytes of a chunk");
    let object = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload };
    let compressed = object.compress(&key.id_key(), &mut Packer::new(3).unwrap()).unwrap();
    let sealed = compressed.seal(&key.data_key(), [7; 24]).unwrap();
    let (vault, session, client) = (VaultId([1; 16]), SessionId([2; 16]), ClientId([3; 16]));
    let head = Head { class: Class::Data, vault, session, client };
    assert_eq!(Head::decode(&head.encode()).unwrap(), head);
    let record = pack::encode_record(Ordinal(5), &sealed.header.encode(), &sealed.body);
    assert_eq!(pack::decode_record(&record).unwrap(), (Ordinal(5), sealed));
    let (row, _) = pack::decode_record_head(&record, 64).unwrap();
    let footer = pack::encode_footer(&[row]);
    assert_eq!(pack::decode_footer(&footer).unwrap(), vec![row]);
    for at in 0..footer.len() {
        let mut changed = footer.clone();
        changed[at] ^= 1;
        // Four bytes at the end and three in the middle are reserved.
        let reserved = at >= footer.len() - 4 || (footer.len() - 15..footer.len() - 12).contains(&at);
        assert!(reserved || pack::decode_footer(&changed).is_err(), "byte {at}");
    }
    check("pack.txt", &[("head", head.encode().to_vec()), ("record", record.clone()), ("footer", footer)]);

    let manifest = Manifest {
        id: ObjectId([4; 32]),
        client,
        client_name: "desk-01".to_owned(),
        sequence: 7,
        server_time: 1_700_000_000,
        bytes_stored: 12_345,
        objects_new: 6,
        signature: vec![9; 8],
        record,
    };
    let bytes = manifest.encode();
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Manifest::decode(&changed).is_err() && Manifest::decode(&bytes[..at]).is_err(), "byte {at}");
    }
    check("manifest.txt", &[("manifest", bytes)]);
}

#[test]
fn mark_and_nights() {
    let mark = Mark {
        client: ClientId([3; 16]),
        sequence: 7,
        id: ObjectId([4; 32]),
        state: State::Forgotten,
        marked_at: 1_700_000_000,
        night: 12,
        grace: 7 * 86_400,
        reason: "no rule of policy default keeps it".to_owned(),
    };
    let nights = Nights { count: 12, last_at: 1_699_990_000 };
    let (mark_bytes, nights_bytes) = (mark.encode(), nights.encode());
    assert_eq!(Mark::decode(&mark_bytes).unwrap(), mark);
    assert_eq!(Nights::decode(&nights_bytes).unwrap(), nights);
    for at in 0..mark_bytes.len() {
        let mut changed = mark_bytes.clone();
        changed[at] ^= 1;
        assert!(Mark::decode(&changed).is_err() && Mark::decode(&mark_bytes[..at]).is_err(), "byte {at}");
    }
    for at in 0..nights_bytes.len() {
        let mut changed = nights_bytes.clone();
        changed[at] ^= 1;
        assert!(
            Nights::decode(&changed).is_err() && Nights::decode(&nights_bytes[..at]).is_err(),
            "byte {at}"
        );
    }
    check("mark.txt", &[("mark", mark_bytes), ("nights", nights_bytes)]);
}

#[test]
fn sidecars() {
    let mut lines = Vec::new();
    for (name, class, len, table) in
        [("meta", Class::Meta, 5_000, 52 + 4 * 6 + 16), ("data", Class::Data, 4_200_000, 52 + 4 * 1_060 + 16)]
    {
        let mut pack = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut pack);
        let id = PackId(*blake3::hash(&pack).as_bytes());
        let mut read = |offset: u64, out: &mut [u8]| {
            out.copy_from_slice(&pack[offset as usize..][..out.len()]);
            Ok(())
        };
        let side = parity::encode(id, class, len as u64, &mut read).unwrap();
        // The second table begins where the parity of whole blocks ends.
        assert_eq!((side.len() - 2 * table - 8) % 4_096, 0, "{name}");
        assert_eq!(side[..table], side[side.len() - 8 - table..side.len() - 8]);
        lines.push((format!("{name} table"), side[..table.min(92)].to_vec()));
        lines.push((format!("{name} blake3"), blake3::hash(&side).as_bytes().to_vec()));
    }
    let lines: Vec<(&str, Vec<u8>)> =
        lines.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    check("parity.txt", &lines);
}
