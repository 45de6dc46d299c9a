//! What is cut off between two steps, and damaged before it goes on.

use backhaul_store::check::Mending;
use backhaul_store::reclaim::{Step, Watch};
use backhaul_store::{StoreError, Vault, rebuild};

use crate::yard::*;

/// Ends it all at one step that comes after another.
struct Until(Option<Step>, Step);

impl Watch for Until {
    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        self.0 = self.0.filter(|before| *before != step);
        if self.0.is_none() && step == self.1 { Err(StoreError::Interrupted) } else { Ok(()) }
    }
}

/// While the new caches are not in their place the old ones may be opened again: they still have what was let go.
#[test]
fn a_rebuild_that_is_cut_off_brings_back_nothing_that_was_let_go() {
    let mut yard = Yard::new();
    let old = yard.snapshot(ANA, 0..10);
    yard.snapshot(ANA, 20..30);
    yard.forget(&old);
    yard.reclaim();
    yard.reclaim_watched(&mut Until(None, Step::LetGo)).unwrap_err();
    yard.vault = None;
    let stone = yard.root().join("catalog.new");
    std::fs::create_dir(&stone).unwrap();
    rebuild::rebuild(&yard.root(), [9; 16], Mending::Look, NOW).unwrap_err();
    std::fs::remove_dir(&stone).unwrap();
    yard.vault = Some(Vault::open(&yard.root()).unwrap());
    assert!(!yard.has(&chunk(0, 5_000).header.id) && yard.has(&chunk(20, 5_000).header.id));
    yard.assert_whole();
}

/// What was to be moved is still where it was, so long as the old packs are.
#[test]
fn a_new_pack_that_does_not_say_what_it_holds_takes_no_others_place() {
    for step in [Step::Journalled, Step::Adopted, Step::Switched] {
        let mut yard = Yard::new();
        for night in 0..9 {
            yard.snapshot(ANA, night * 10..night * 10 + 10);
        }
        let before: Vec<_> = files(&yard.root().join("packs"));
        yard.reclaim_watched(&mut Until(Some(Step::Written), step)).unwrap_err();
        yard.vault = None;
        let is_new = |path: &std::path::PathBuf| !before.contains(path);
        let both = [yard.root().join("open"), yard.root().join("packs")];
        let new = both.iter().flat_map(|dir| files(dir)).find(is_new).unwrap();
        let mut bytes = std::fs::read(&new).unwrap();
        let end = bytes.len();
        bytes[end - 8] ^= 1;
        std::fs::write(&new, bytes).unwrap();
        yard.vault = Some(Vault::open(&yard.root()).unwrap());
        assert!((0..90).all(|n| yard.has(&chunk(n, 5_000).header.id)), "{step:?}");
        assert!(!yard.root().join("reclaim.journal").exists());
    }
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map(Result::unwrap);
    entries
        .flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect()
}
