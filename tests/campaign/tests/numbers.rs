//! A number that was never given out, in a pack that was being written: no checksum covers it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use backhaul_campaign::golden::{self, Golden, holds};
use backhaul_campaign::mend::mend;
use backhaul_store::Vault;
use backhaul_store::check::Mending;
use backhaul_store::rebuild::rebuild;
use backhaul_tests::trees;

/// Where the number of the first record is (docs/format.md, "Packs").
const NUMBER_AT: usize = 64 + 12;
/// That of another object; and more than may be missing, few enough that an index which believes it fits in memory.
const BITS: [u32; 2] = [0, 23];

/// Once the record stands in a pack with a footer, the footer covers its number: it must not come to that.
#[test]
fn a_number_that_was_never_given_out_is_not_believed_by_the_second_rebuild_either() {
    let dir = tempfile::tempdir().unwrap();
    let [_, vault, ..] = golden::make(dir.path());
    BITS.into_iter().for_each(|bit| flipped(&vault, &dir.path().join("work"), bit));
}

fn flipped(vault: &Golden, root: &Path, bit: u32) {
    vault.lay(root);
    let [open] = trees::files(&root.join("open")).try_into().unwrap();
    let mut bytes = fs::read(&open).unwrap();
    let number = u64::from_le_bytes(bytes[NUMBER_AT..][..8].try_into().unwrap());
    bytes[NUMBER_AT..][..8].copy_from_slice(&(number ^ 1 << bit).to_le_bytes());
    fs::write(&open, bytes).unwrap();
    let refused = Vault::open(root).err().unwrap().to_string();
    assert!(refused.contains("is that of no object in it"), "{refused}");
    for generation in [[5; 16], [6; 16]] {
        rebuild(root, generation, Mending::Mend, 80).unwrap();
        let index: u64 = trees::files(&root.join("index")).iter().map(|f| f.metadata().unwrap().len()).sum();
        assert!(index < 1 << 20, "an index of {index} bytes");
        assert_eq!(holds(&Vault::open(root).unwrap()).unwrap(), vault.holds);
    }
    assert!(mend(root).unwrap().0.is_sound());
    assert!(!trees::files(&root.join("quarantine")).is_empty(), "the file as it was is kept");
}
