//! Ended at every step, and gone on from there.

use backhaul_store::check::Mending;

use crate::yard::*;

/// Two clients, forgotten snapshots, packs to drop and packs to compact; one pass is over.
fn scene() -> Yard {
    let mut yard = Yard::new();
    let first = yard.snapshot(ANA, 0..40);
    yard.snapshot(ANA, 30..50);
    let second = yard.snapshot(BEA, 100..110);
    yard.snapshot(BEA, 45..60);
    yard.forget(&first);
    yard.reclaim();
    yard.forget(&second);
    yard
}

#[test]
fn a_pass_that_is_ended_at_any_step_loses_nothing_and_a_later_one_goes_on() {
    let mut steps = 0;
    loop {
        let mut done = true;
        // Ended and gone on in the same process; killed and opened; killed, and the caches lost as well.
        for after in 0..3 {
            let mut yard = scene();
            let mut watch = EndAt { left: steps, steps: Vec::new() };
            done &= yard.reclaim_watched(&mut watch).is_ok();
            match after {
                0 => {}
                1 => yard.crash(),
                _ => {
                    yard.crash();
                    yard.vault = None;
                    let report =
                        backhaul_store::rebuild::rebuild(&yard.root(), [8; 16], Mending::Look, NOW).unwrap();
                    assert!(report.damage.is_empty(), "{:?}: {:?}", watch.steps, report.damage);
                    yard.vault = Some(backhaul_store::Vault::open(&yard.root()).unwrap());
                }
            }
            yard.assert_whole();
            (0..4).for_each(|_| drop(yard.reclaim()));
            yard.assert_whole();
            let left = [0, 100].map(|n| yard.has(&chunk(n, 5_000).header.id));
            assert_eq!(left, [false; 2], "{after} {:?}\n{:?}", watch.steps, yard.vault().fence());
            assert_eq!(yard.vault().snapshots(None).unwrap().len(), 2);
            assert_eq!(std::fs::read_dir(yard.root().join("open")).unwrap().count(), 0, "{:?}", watch.steps);
            assert!(!yard.root().join("reclaim.journal").exists());
            let known: u64 = yard.vault().stats().unwrap().bytes_on_disk;
            assert_eq!(yard.bytes(), known, "{after} {:?}", watch.steps);
        }
        if done {
            break;
        }
        steps += 1;
    }
    assert!(steps > 14, "{steps}");
}
