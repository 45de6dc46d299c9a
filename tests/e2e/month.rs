//! A repository in daily use, in a few days of small trees; `cargo run --release -p backhaul-tests --bin month` takes
//! as many as one likes.

use backhaul_tests::month::{Plan, live};
use backhaul_tests::trees;

#[test]
fn what_is_listed_after_days_of_use_with_retention_and_reclaim_restores_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan { days: 9, seed: 3, trees: vec![trees::everything(dir.path())], read_data_every: 4 };
    let mut log = Vec::new();
    let Some(outcome) = live(&plan, &mut log) else { return };
    let log = String::from_utf8(log).unwrap();
    assert_eq!(outcome.made, 9, "{log}");
    assert!(outcome.restored >= 4 && outcome.restored < outcome.made, "{outcome:?}: {log}");
}
