//! What the parity promises, and no more.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn reader(pack: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<(), StoreError> {
    move |offset, out| match pack.get(offset as usize..).and_then(|rest| rest.get(..out.len())) {
        Some(bytes) => {
            out.copy_from_slice(bytes);
            Ok(())
        }
        None => Err(StoreError::damaged("the pack", "short")),
    }
}

fn sidecar(pack: &[u8], class: Class) -> Vec<u8> {
    encode(PackId([1; 32]), class, pack.len() as u64, &mut reader(pack)).unwrap()
}

fn mended(sidecar: Vec<u8>, damaged: &[u8], len: usize) -> Result<Vec<u8>, Beyond> {
    let patches = mend(&Sidecar::parse(sidecar).unwrap(), &mut reader(damaged))?;
    let mut out = damaged.to_vec();
    out.resize(len, 0);
    for patch in patches {
        out[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    Ok(out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Up to as many blocks of a stripe as it has parity, of the pack or of the parity itself: healed; one more: said.
    #[test]
    fn as_many_blocks_as_there_is_parity_come_back_and_not_one_more(
        len in 1usize..200_000,
        is_meta in any::<bool>(),
        picks in proptest::collection::vec(any::<Index>(), 0..24),
    ) {
        let pack = noise(len);
        let class = if is_meta { Class::Meta } else { Class::Data };
        let mut side = sidecar(&pack, class);
        let layout = Sidecar::parse(side.clone()).unwrap().table().layout;
        let (blocks, parity) = (layout.blocks() as usize, layout.parity as usize);
        let hit: BTreeSet<usize> = picks.iter().map(|pick| pick.index(blocks + parity)).collect();
        let mut damaged = pack.clone();
        let table = (side.len() - 8 - parity * BLOCK) / 2;
        for block in &hit {
            match block.checked_sub(blocks) {
                None => damaged[block * BLOCK] ^= 1,
                Some(number) => side[table + number * BLOCK] ^= 1,
            }
        }
        let lost = hit.iter().filter(|block| **block < blocks).count();
        let result = mended(side, &damaged, len);
        if hit.len() <= parity || lost == 0 {
            prop_assert_eq!(result, Ok(pack));
        } else {
            prop_assert_eq!(result, Err(Beyond { blocks: lost as u64 }));
        }
    }
}

#[test]
fn a_burst_as_long_as_the_parity_of_all_stripes_comes_back() {
    let pack = noise((9 << 20) + 12_345);
    let side = sidecar(&pack, Class::Data);
    assert!(side.len() * 1_000 < pack.len() * 35, "{}", side.len());
    let layout = Sidecar::parse(side.clone()).unwrap().table().layout;
    let burst = (layout.parity * layout.stripes()) as usize * BLOCK;
    assert!(layout.stripes() == 3 && burst > 256 << 10);
    let start = 1 << 20;
    let mut damaged = pack.clone();
    damaged[start..start + burst].fill(0);
    assert!(mended(side.clone(), &damaged, pack.len()).unwrap() == pack);
    damaged[start..start + burst + 1].fill(0);
    assert!(mended(side, &damaged, pack.len()).is_err());
}

#[test]
fn a_pack_that_is_cut_short_or_has_grown_comes_back() {
    let pack = noise(300_000);
    let side = sidecar(&pack, Class::Meta);
    assert!(mended(side.clone(), &pack[..pack.len() - 30_000], pack.len()).unwrap() == pack);
    let longer = [&pack[..], &[7; 50_000]].concat();
    assert!(mended(side, &longer, pack.len()).unwrap()[..pack.len()] == pack);
}

/// One table is enough, and nothing that was changed passes for whole.
#[test]
fn every_change_of_a_sidecar_is_noticed_and_half_of_it_still_serves() {
    let pack = noise(20_000);
    let side = sidecar(&pack, Class::Data);
    assert!(Sidecar::parse(side.clone()).unwrap().is_whole());
    let mut damaged = pack.clone();
    damaged[5_000] ^= 4;
    // Every byte of the tables, some of the parity.
    let table = 52 + 4 * (5 + 2) + 16;
    let parity = table..side.len() - 8 - table;
    for at in (0..side.len()).filter(|at| !parity.contains(at) || at % 97 == 0) {
        let mut changed = side.clone();
        changed[at] ^= 1;
        let parsed = Sidecar::parse(changed.clone()).unwrap();
        assert!(!parsed.is_whole(), "byte {at}");
        assert_eq!(mended(changed, &damaged, pack.len()).as_ref(), Ok(&pack), "byte {at}");
    }
    for len in (0..side.len()).step_by(7) {
        let parsed = Sidecar::parse(side[..len].to_vec());
        assert!(parsed.is_err() || !parsed.unwrap().is_whole(), "{len} bytes");
    }
}
