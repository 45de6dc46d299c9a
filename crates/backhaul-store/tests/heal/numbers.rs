//! Numbers that no checksum covers: those in the records of a pack whose footer is damaged.

use std::fs;
use std::path::Path;

use backhaul_store::check::{Mending, Part};
use backhaul_store::{Vault, rebuild};

use crate::scene::*;

const FIRST: usize = 64 + 12;

/// The checksum of the footer of ana's first pack of data, and one bit of the number of the first record.
fn renumbered(root: &Path, byte: usize, bit: u8) {
    let mut all = files(root, "packs");
    all.retain(|path| fs::read(path).unwrap()[FIRST..FIRST + 8] == [0; 8]);
    let mut bytes = fs::read(&all[0]).unwrap();
    let end = bytes.len();
    bytes[end - 8] ^= 1;
    bytes[FIRST + byte] ^= bit;
    fs::write(&all[0], bytes).unwrap();
}

/// A number that cannot have been given out makes no room for itself, and one that is another's takes its place from it
/// unsaid.
#[test]
fn a_changed_number_costs_its_object_alone_and_is_named() {
    let (first, second) = (tree(1)[0].header.id, tree(1)[1].header.id);
    for (byte, bit) in [(5, 0x80), (3, 0x40), (7, 0x80), (0, 1)] {
        let dir = filled();
        renumbered(dir.path(), byte, bit);
        let report = rebuild::rebuild(dir.path(), [2; 16], Mending::Look, 78).unwrap();
        assert!(report.damage.len() == 1 && report.damage[0].mended.is_none(), "{:?}", report.damage);
        let vault = Vault::open(dir.path()).unwrap();
        let is_there = |id| vault.ordinal(id).unwrap().is_some_and(|ordinal| vault.get(ordinal).is_ok());
        // Of two with one number it cannot be told whose it was.
        let (lost, other) = if is_there(&first) { (second, first) } else { (first, second) };
        assert!(!is_there(&lost) && is_there(&other));
        let why = &report.damage[0].why;
        assert!(why.contains("number") && (byte > 0 || why.contains(&lost.to_string())), "{why}");
        assert!(fs::metadata(dir.path().join("index/ids")).unwrap().len() < 1 << 20);
        // It is wanted, and its snapshot says so until it comes.
        let is_lost = || {
            let damage = check(&vault, Mending::Look).damage;
            damage.iter().any(|damage| damage.what == Part::Object(lost.short()))
        };
        assert!(is_lost());
        back_up(&vault, ANA, 3, 1);
        assert!(!is_lost() && is_there(&lost));
    }
}
