//! A slice of each suite with fixed seeds, small enough for every test run.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::path::PathBuf;

use backhaul_campaign::daemons::{self, BACKUPS, Victim, When};
use backhaul_campaign::flips::Flips;
use backhaul_campaign::kill::Ground;
use backhaul_campaign::real::Real;
use backhaul_campaign::stage::Stage;
use backhaul_campaign::story::{Story, prepare};
use backhaul_campaign::teller::Teller;
use backhaul_campaign::{around, fault, kill, misplace, power, record, rot, sync, trace, twice};
use backhaul_store::pack::{HEAD_LEN, Head};
use backhaul_tests::trees;

fn teller() -> Teller {
    Teller { program: PathBuf::from(env!("CARGO_BIN_EXE_campaign")), breach: None }
}

/// True if this machine lets a suite do what it does; else that is said, whether a test run shows outputs or not.
fn can(available: bool, needs: &str) -> bool {
    if !available {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {needs}");
    }
    available
}

fn can_mount(what: &str) -> bool {
    can(record::available(), &format!("{what} need root and /dev/fuse"))
}

fn can_trace(what: &str) -> bool {
    can(trace::available(), &format!("{what} need strace"))
}

/// A directory in memory, where there is one: the cases are about order, and a real disk would only cost time.
fn memory() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    if !can_mount("power cuts") {
        return;
    }
    let work = memory();
    let stage = Stage::at(work.path());
    for story in [
        Story::Birth,
        Story::Backup,
        Story::Commit,
        Story::Pair,
        Story::Cut,
        Story::Rebuild,
        Story::Prune,
        Story::Late,
        Story::Rely,
        Story::Mend,
        Story::Regain,
        Story::Heal,
        Story::Patches,
    ] {
        let recorded = power::record(&teller(), story, &stage, work.path()).unwrap();
        let outcome = recorded.explore(story, &stage, work.path(), (1, 40), 3);
        assert_eq!(outcome.broken, Vec::<String>::new());
        assert!(outcome.distinct > 18, "{story:?}: {outcome:?}");
    }
}

#[test]
fn what_is_acknowledged_after_a_failed_sync_does_not_rely_on_it() {
    if !can_mount("syncs that fail") {
        return;
    }
    let work = memory();
    let stage = Stage::at(work.path());
    let at = (&stage, work.path());
    for (story, step, states) in
        [(Story::Stubborn, 20, 8), (Story::Rebuild, 1, 6), (Story::Mend, 5, 8), (Story::Rely, 4, 8)]
    {
        let outcome = sync::sweep(&teller(), story, at, (11, step, states), 3).unwrap();
        assert_eq!(outcome.seen.broken, Vec::<String>::new());
        assert!(outcome.failed > 3, "{outcome:?}");
    }
}

#[test]
fn what_a_killed_process_left_is_durable_before_another_relies_on_it() {
    if !can_mount("kills with power cuts") {
        return;
    }
    let work = memory();
    let stage = Stage::at(work.path());
    let at = (&stage, work.path());
    for (story, points) in [(Story::Backup, 10), (Story::Late, 16)] {
        let outcome = twice::sweep(&teller(), story, at, (5, points, 6), 3).unwrap();
        assert_eq!(outcome.seen.broken, Vec::<String>::new());
        assert!(outcome.killed > 5, "{outcome:?}");
    }
}

#[test]
fn every_harm_to_every_file_is_noticed_or_harmless_and_mended() {
    let work = memory();
    let flips = Flips::new(work.path());
    // The small files, too.
    let cases = (7..flips.cases).step_by(flips.cases as usize / 250).chain(flips.of_each(4));
    let outcome = flips.some(cases, &work.path().join("work"));
    assert_eq!(outcome.broken, Vec::<String>::new());
    assert!(outcome.noticed * 2 > outcome.cases, "{outcome:?}");
}

#[test]
fn files_in_the_wrong_place_are_noticed_or_harmless_and_what_they_cost_is_named() {
    let work = memory();
    let outcome = misplace::explore(work.path(), 5);
    assert_eq!(outcome.broken, Vec::<String>::new());
    assert!(outcome.noticed > 50, "{outcome:?}");
}

#[test]
fn what_was_acknowledged_survives_kills() {
    if !can_trace("kills") {
        return;
    }
    let work = memory();
    let stage = Stage::at(work.path());
    let teller = teller();
    for story in
        [Story::Backup, Story::Rebuild, Story::Prune, Story::Mend, Story::Regain, Story::Heal, Story::Patches]
    {
        let ground = Ground::new(&teller, story, &stage, work.path()).unwrap();
        let outcome = kill::sweep(&ground, (1, 19, 3), 3).unwrap();
        assert_eq!(outcome.broken, Vec::<String>::new());
        assert!(outcome.killed > 5, "{story:?}: {outcome:?}");
    }
}

#[test]
fn what_was_acknowledged_survives_faults_and_each_is_said() {
    if !can_trace("faults") {
        return;
    }
    let work = memory();
    let stage = Stage::at(work.path());
    let teller = teller();
    let sweep = if can_mount("writes taken in part") { fault::sweep } else { fault::refusals };
    for (story, step) in [(Story::Backup, 40), (Story::Rebuild, 80), (Story::Prune, 110)] {
        let ground = Ground::new(&teller, story, &stage, work.path()).unwrap();
        let outcome = sweep(&ground, step, 3).unwrap();
        assert_eq!(outcome.broken, Vec::<String>::new());
        assert!(outcome.refused > 3, "{story:?}: {outcome:?}");
    }
}

/// What is forgotten in that story is in packs with what is not: else nothing would be moved, whatever is done to it.
#[test]
fn the_story_of_pruning_moves_what_is_needed_into_new_packs() {
    let work = memory();
    let (stage, dir) = (Stage::at(work.path()), work.path().join("vault"));
    prepare(Story::Prune, &dir, &stage, &|_| {}).unwrap();
    Story::Prune.run(&dir, &stage, work.path(), &|_| {}).unwrap();
    let head = |path: PathBuf| Head::decode(&std::fs::read(path).unwrap()[..HEAD_LEN]).unwrap();
    let sessions = trees::files(&dir.join("packs")).into_iter().map(head).map(|head| head.session.0);
    assert!(sessions.into_iter().any(|session| session == [0; 16]), "none was written by reclaim");
}

/// The real program, each kind of file once or so.
#[test]
fn what_rots_is_named_or_harmless_and_nothing_wrong_is_restored() {
    let work = memory();
    let stage = Stage::at(work.path());
    let real = Real::prepare(&stage, work.path(), 2).unwrap();
    let outcome = rot::explore(&real, (2, 12), 3);
    assert_eq!(outcome.broken, Vec::<String>::new());
    assert!(outcome.named > 5, "{outcome:?}");
}

#[test]
fn a_server_a_client_and_a_command_that_are_killed_lose_nothing() {
    if !can_trace("kills of the real program") {
        return;
    }
    let work = memory();
    let stage = Stage::at(work.path());
    let real = Real::prepare(&stage, work.path(), BACKUPS).unwrap();
    let mut all = daemons::Outcome::default();
    for (victim, nth) in [
        (Victim::Server, 9),
        (Victim::Agent, 20),
        (Victim::Pulled, 10),
        (Victim::Serving, 6),
        (Victim::Export, 8),
        (Victim::Restore, 5),
        (Victim::Prune, 30),
        (Victim::Join, 4),
    ] {
        all.add(daemons::sweep(&real, victim, [When::Call(nth)], 1));
    }
    assert_eq!(all.broken, Vec::<String>::new());
    assert!(all.killed > 3, "{all:?}");
}

#[test]
fn a_disk_that_fails_under_a_server_or_a_client_is_said_and_loses_nothing() {
    if !can_mount("faults outside of the vault") {
        return;
    }
    let work = memory();
    let stage = Stage::at(work.path());
    for (victim, step) in [(Victim::Server, 90), (Victim::Agent, 6), (Victim::Restore, 45)] {
        let outcome = around::sweep(&stage, work.path(), victim, (7, step), 3).unwrap();
        assert_eq!(outcome.broken, Vec::<String>::new());
        assert!(outcome.sites > 2, "{victim:?}: {outcome:?}");
    }
}
