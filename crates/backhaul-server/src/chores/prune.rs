//! `prune`: forgotten snapshots whose grace is over go, and what only they needed becomes free, pass by pass.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backhaul_object::breach::Breach;
use backhaul_object::ids::ClientId;
use backhaul_store::StoreError;
use backhaul_store::reclaim::{self, Report, Step, Watch};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Outcome, Tools};
use crate::clock::{Stopwatch, Time};
use crate::error::ServerError;
use crate::fleet::Fleet;
use crate::keep::braking;

/// How often the progress is told.
const TELL: Duration = Duration::from_millis(300);
/// Longest sleep in one go: whoever stops the server does not wait longer.
const NAP: Duration = Duration::from_millis(100);

/// How it is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Bytes a second that may be read and written.
    #[serde(default)]
    pub limit: Option<u64>,
}

/// Tells how far it is, keeps to the rate, and stops when the server does.
struct Pacer<'a, T> {
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(&str),
    limit: Option<u64>,
    time: T,
    /// When the progress was told last.
    told: Duration,
    bytes: u64,
    doing: &'static str,
    /// Knows whose brake is tripped.
    fleet: Option<&'a Fleet>,
}

impl<'a, T: Time> Pacer<'a, T> {
    fn new(tools: (&'a AtomicBool, &'a mut dyn FnMut(&str)), limit: Option<u64>, time: T) -> Self {
        let (stop, progress) = tools;
        let told = time.passed();
        let (bytes, doing, fleet) = (0, "finding out what is needed", None);
        Self { stop, progress, limit, time, told, bytes, doing, fleet }
    }

    fn may_go_on(&self) -> Result<(), StoreError> {
        if self.stop.load(Ordering::Relaxed) { Err(StoreError::Interrupted) } else { Ok(()) }
    }
}

impl<T: Time> Watch for Pacer<'_, T> {
    fn bytes(&mut self, count: u64) -> Result<(), StoreError> {
        self.bytes += count;
        if self.time.passed() >= self.told + TELL {
            self.told = self.time.passed();
            (self.progress)(&format!("{}, {} read or written", self.doing, size(self.bytes)));
        }
        self.may_go_on()?;
        let Some(limit) = self.limit else { return Ok(()) };
        let due = Duration::from_secs_f64(self.bytes as f64 / limit.max(1) as f64);
        while let Some(early) = due.checked_sub(self.time.passed()).filter(|early| !early.is_zero()) {
            self.may_go_on()?;
            self.time.nap(early.min(NAP));
        }
        Ok(())
    }

    /// A run may have tripped its brake since the pass began.
    fn holds(&mut self, client: ClientId) -> Result<bool, StoreError> {
        let Some(fleet) = self.fleet.filter(|_| !Breach::UnheededBrake.is_on()) else { return Ok(false) };
        fleet.brake(client).map(|brake| brake.is_some()).map_err(|error| {
            let (path, source) =
                (PathBuf::from(format!("the brake of client {client}")), io::Error::other(error));
            StoreError::Io { doing: "read", path, source }
        })
    }

    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        self.doing = match step {
            Step::Unlisted | Step::Unmade => "finding out what is needed",
            Step::Marked | Step::Condemned => "making sure by the packs themselves",
            _ => "freeing room",
        };
        self.may_go_on()
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64 / 1024.0;
    for unit in UNITS {
        if value < 1024.0 {
            return if bytes < 1024 { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} EiB")
}

/// One pass.
pub(crate) fn carry_out(request: &Request, tools: &mut Tools<'_>) -> Result<Outcome, ServerError> {
    let vault = &tools.vault.vault;
    if !request.dry_run {
        vault.count_night(tools.now)?;
        braking::catch_up(tools.fleet, tools.vault, tools.now)?;
    }
    let mut held: HashSet<_> = tools.fleet.brakes()?.into_iter().map(|(client, _)| client).collect();
    held.retain(|_| !Breach::UnheededBrake.is_on());
    let mut holds: Vec<String> = held
        .iter()
        .filter_map(|client| tools.fleet.client_by_id(*client).transpose())
        .map(|client| Ok(client?.name))
        .collect::<Result<_, ServerError>>()?;
    holds.sort();
    let aside_kept = tools.home.config()?.scrub.quarantine().map_err(ServerError::Usage)?;
    let pass = reclaim::Request { now: tools.now, held, dry_run: request.dry_run, aside_kept };
    let mut pacer = Pacer {
        fleet: Some(tools.fleet),
        ..Pacer::new((tools.stop, tools.progress), request.limit, Stopwatch::start())
    };
    let report = vault.reclaim(&pass, &mut pacer)?;
    let document = json!({
        "dry_run": request.dry_run, "epoch": report.epoch, "snapshots": report.snapshots, "objects": report.objects,
        "packs_removed": report.packs, "packs_compacted": report.compacted, "bytes_moved": report.bytes_moved,
        "bytes_freed": report.bytes_freed, "bytes_on_disk": report.bytes_on_disk,
        "objects_condemned": report.condemned, "bytes_condemned": report.bytes_condemned,
        "waits_for": report.waits_for, "no_room": report.no_room, "quarantine_removed": report.aside_removed,
        "held": holds,
    });
    Ok(Outcome { words: words(&report, &holds, request.dry_run), document })
}

fn words(report: &Report, holds: &[String], dry_run: bool) -> String {
    let count = |n: u64, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let (would, is) = if dry_run { ("would be ", "would be") } else { ("", "are") };
    let mut text = format!(
        "{would}gone: {}, {}; {would}freed: {}, {} left",
        count(report.snapshots, "forgotten snapshot"),
        count(report.objects, "object"),
        size(report.bytes_freed),
        size(report.bytes_on_disk),
    );
    if report.condemned > 0 {
        let (objects, bytes) = (count(report.condemned, "object"), size(report.bytes_condemned));
        let when = match report.waits_for.first() {
            Some(who) => format!("once {who} has ended"),
            None => "with the next prune".to_owned(),
        };
        text.push_str(&format!("; {objects} ({bytes}) {is} condemned and may go {when}"));
    }
    if report.aside_removed > 0 {
        let files = count(report.aside_removed, "old file");
        text.push_str(&format!("; {files} of former repairs removed from quarantine/"));
    }
    for client in holds {
        text.push_str(&format!(
            "; no snapshot of {client} goes: its brake holds (`backhaul forget --release-brake --client {client}`)"
        ));
    }
    if report.no_room {
        text.push_str("; there is no room to compact packs that are half dead");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::cell::RefCell;

    use backhaul_schedule::brake::{Added, Profile};

    use super::*;
    use crate::fleet::{Brake, Initiator, Terms};

    /// Time passes only while somebody sleeps: how long in one go, each time.
    #[derive(Default)]
    struct Naps<'a> {
        taken: RefCell<Vec<Duration>>,
        stop: Option<(&'a AtomicBool, usize)>,
    }

    impl Time for &Naps<'_> {
        fn passed(&self) -> Duration {
            self.taken.borrow().iter().sum()
        }

        fn nap(&mut self, time: Duration) {
            self.taken.borrow_mut().push(time);
            assert!(self.taken.borrow().len() < 1_000, "it sleeps on and on");
            if let Some((stop, _)) = self.stop.filter(|(_, after)| self.taken.borrow().len() == *after) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Each step of a pass takes as long as its bytes do at that rate.
    #[test]
    fn every_byte_of_a_pass_takes_its_time_whatever_is_being_done() {
        let (stop, naps) = (AtomicBool::new(false), Naps::default());
        let mut told = Vec::new();
        let mut tell = |words: &str| told.push(words.to_owned());
        let mut pacer = Pacer::new((&stop, &mut tell), Some(1_000_000), &naps);
        let steps = [Step::Unmade, Step::Marked, Step::Condemned, Step::Verified, Step::Cleared];
        for (seconds, step) in (1..).zip(steps) {
            (0..10).for_each(|_| pacer.bytes(100_000).unwrap());
            pacer.step(step).unwrap();
            assert_eq!((&naps).passed(), Duration::from_secs(seconds), "before {step:?}");
        }
        assert!(naps.taken.borrow().iter().all(|nap| *nap <= NAP));
        assert!(
            told.iter().any(|words| words.starts_with("making sure by the packs themselves, ")),
            "{told:?}"
        );
        // Time that passed by itself is not slept again.
        naps.taken.borrow_mut().push(Duration::from_secs(10));
        let before = naps.taken.borrow().len();
        let mut tell = |_: &str| {};
        Pacer { bytes: 5_000_000, ..Pacer::new((&stop, &mut tell), Some(1_000_000), &naps) }
            .bytes(1_000_000)
            .unwrap();
        Pacer::new((&stop, &mut tell), None, &naps).bytes(1 << 40).unwrap();
        assert_eq!(naps.taken.borrow().len(), before);
    }

    #[test]
    fn who_sleeps_for_the_rate_ends_when_the_server_stops() {
        let stop = AtomicBool::new(false);
        let naps = Naps { stop: Some((&stop, 3)), ..Naps::default() };
        let mut tell = |_: &str| {};
        let mut pacer = Pacer::new((&stop, &mut tell), Some(1), &naps);
        assert!(matches!(pacer.bytes(1 << 40), Err(StoreError::Interrupted)));
        assert_eq!(naps.taken.borrow().len(), 3);
    }

    /// The brake may be tripped while a pass finds out what may go.
    #[test]
    fn a_pass_hears_of_a_brake_that_is_tripped_while_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.sqlite");
        let (fleet, mut of_runs) = (Fleet::open(&path).unwrap(), Fleet::open(&path).unwrap());
        let [ana, bea] = ["ana", "bea"].map(|name| {
            let (vault, policy) = ("main".to_owned(), "default".to_owned());
            let terms = Terms { initiator: Initiator::CLIENT, address: None, vault, policy, owner: None };
            of_runs.add(name, &terms, 1).unwrap();
            of_runs.require(name).unwrap().id
        });
        let (stop, naps) = (AtomicBool::new(false), Naps::default());
        let mut tell = |_: &str| {};
        let mut pacer = Pacer { fleet: Some(&fleet), ..Pacer::new((&stop, &mut tell), None, &naps) };
        assert!(!pacer.holds(ana).unwrap());
        let added = Added { bytes: 1, packed: 1 };
        let profile = Profile { sequence: 3, files: 1, files_new: 0, files_changed: 1, bytes: 1, added };
        let (client, brake) =
            (of_runs.require("ana").unwrap(), Brake { sequence: 3, since: 5, why: "test".to_owned() });
        of_runs.note_run(&client, &profile, Some(&brake)).unwrap();
        assert!(pacer.holds(ana).unwrap() && !pacer.holds(bea).unwrap());
    }

    #[test]
    fn one_line_says_what_went_and_what_waits() {
        let report = Report {
            snapshots: 1,
            objects: 20,
            bytes_freed: 3 << 20,
            bytes_on_disk: 1 << 30,
            ..Report::default()
        };
        assert_eq!(
            words(&report, &[], false),
            "gone: 1 forgotten snapshot, 20 objects; freed: 3.0 MiB, 1.0 GiB left"
        );
        let report = Report { condemned: 1, bytes_condemned: 900, ..Report::default() };
        assert_eq!(
            words(&report, &[], false),
            "gone: 0 forgotten snapshots, 0 objects; freed: 0 B, 0 B left; 1 object (900 B) are condemned and may \
             go with the next prune"
        );
        let report = Report { waits_for: vec!["a restore of desk-01".to_owned()], ..report };
        assert!(
            words(&report, &[], true)
                .ends_with("would be condemned and may go once a restore of desk-01 has ended")
        );
        let held = words(&Report::default(), &["desk".to_owned()], false);
        assert!(
            held.contains("no snapshot of desk goes") && held.contains("--release-brake --client desk"),
            "{held}"
        );
        let report = Report { no_room: true, ..Report::default() };
        assert!(words(&report, &[], false).ends_with("no room to compact packs that are half dead"));
    }
}
