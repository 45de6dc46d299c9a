//! All arms with all seeds, on as many threads as there are processors to spare.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::arm::Arm;
use crate::case::Case;
use crate::sim;
use crate::stats::percentile;
use crate::tally::{Kind, SAMPLES, Tally};

/// Seconds between the packets of a laptop's link: home networks translate addresses.
const KEEPALIVE: i64 = 25;
/// Points of a curve of cumulated shares: one for each half percent.
pub const POINTS: usize = 201;
/// From this share of busy samples on the server is called saturated: polls leave slots free for moments though many wait.
const SATURATED: f64 = 0.85;

/// What one run of one arm came to, for one class of machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// By [`COLUMNS`].
    pub values: [f64; COLUMNS.len()],
    /// Staleness at the end of stretches in hours, by cumulated share.
    pub staleness: Vec<f64>,
}

/// What is printed of a class; `true` where a saturated server makes it meaningless.
pub const COLUMNS: [(&str, usize, Waits); 14] = [
    ("missed %", 2, Waits::No),
    ("of it no UDP", 2, Waits::No),
    ("stale p50 h", 1, Waits::No),
    ("p95", 1, Waits::No),
    ("p99", 1, Waits::No),
    ("to start p50 min", 1, Waits::Yes),
    ("p95", 0, Waits::Yes),
    ("to snapshot p50 min", 1, Waits::Yes),
    ("p95", 0, Waits::Yes),
    ("worst/best client", 2, Waits::No),
    ("contacts/day", 0, Waits::No),
    ("dials/day", 0, Waits::No),
    ("wasted/day", 0, Waits::No),
    ("keep-alives/day", 0, Waits::No),
];

/// The column of missed days.
pub const MISSED: usize = 0;

/// Whether a column tells how long something waits for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// What one run of one arm came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Result {
    /// Desktops and laptops.
    pub kinds: [Figures; 2],
    /// By [`SERVER`].
    pub server: [f64; SERVER.len()],
    /// Mean runs and waiting clients by time of day, on working days.
    pub load: Vec<(f64, f64)>,
    /// By machine and counted day: none for a day that does not count, else whether there was a snapshot. Not kept in files.
    #[serde(skip)]
    pub protected: Vec<Vec<Option<bool>>>,
    /// Events a second; not the same twice.
    pub speed: f64,
}

/// What is printed of the server.
pub const SERVER: [(&str, usize); 10] = [
    ("peak starts/min", 1),
    ("peak running", 1),
    ("peak waiting", 1),
    ("all slots taken % (10–18 h)", 1),
    ("snapshots/day", 0),
    ("failed or cut runs/day", 1),
    ("contacts/day", 0),
    ("alerts", 1),
    ("events/day", 0),
    ("judged/day", 0),
];
const BUSY: usize = 3;

impl Result {
    /// True when no slot was free for nearly all of the working hours: the queue never drained.
    pub fn is_saturated(&self) -> bool {
        self.server[BUSY] >= 100.0 * SATURATED
    }
}

/// Results by arm, in the order of seeds.
pub type Results = BTreeMap<Arm, Vec<Result>>;
/// What each run came to.
pub type Runs = BTreeMap<(Arm, u64), Result>;

/// By arm.
pub fn results(runs: Runs) -> Results {
    let mut results = Results::new();
    for ((arm, _), result) in runs {
        results.entry(arm).or_default().push(result);
    }
    results
}

/// Runs all of them but those that were done before. `told` hears of each that is done.
pub fn run(
    case: &Case,
    arms: &[Arm],
    seeds: u64,
    threads: usize,
    before: Runs,
    told: &(dyn Fn(Arm, u64, &Result) + Sync),
) -> Runs {
    let jobs = (1..=seeds).flat_map(|seed| arms.iter().map(move |arm| (*arm, seed)));
    let jobs: Vec<(Arm, u64)> = jobs.filter(|job| !before.contains_key(job)).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(before);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((arm, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let result = figures(case, sim::run(case, arm, seed));
                    told(arm, seed, &result);
                    if let Ok(mut done) = done.lock() {
                        done.insert((arm, seed), result);
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default()
}

/// What a run came to.
pub fn figures(case: &Case, mut tally: Tally) -> Result {
    let days = f64::from(case.days - case.warm_up);
    let whole = f64::from(case.days);
    let speed = tally.steps_per_second();
    let shares = |class: usize| {
        let range = if class == 0 { 0..case.desktops } else { case.desktops..case.machines() };
        let shares = tally.shares[range].iter().filter(|(days, _)| *days >= 3);
        let shares: Vec<f64> =
            shares.map(|(days, protected)| f64::from(*protected) / f64::from(*days)).collect();
        let (worst, best) =
            (shares.iter().copied().fold(1.0, f64::min), shares.iter().copied().fold(0.0, f64::max));
        if best > 0.0 { worst / best } else { 0.0 }
    };
    let fair = [shares(0), shares(1)];
    let [desktops, laptops] = &mut tally.kinds;
    let contacts = (desktops.contacts + laptops.contacts) as f64 / days;
    let kinds = [kind(case, desktops, fair[0], days), kind(case, laptops, fair[1], days)];
    let server = [
        tally.peak_starts as f64,
        tally.peak_running as f64,
        tally.peak_queue as f64,
        100.0 * tally.busy.1 as f64 / tally.busy.0.max(1) as f64,
        tally.successes as f64 / whole,
        tally.failures as f64 / whole,
        contacts,
        tally.alerts as f64,
        tally.steps as f64 / whole,
        tally.judged as f64 / whole,
    ];
    let sampled = (tally.sampled as f64 / SAMPLES as f64).max(1.0);
    let load =
        tally.load.iter().map(|(running, waiting)| (*running as f64 / sampled, *waiting as f64 / sampled));
    Result { kinds, server, load: load.collect(), protected: tally.protected, speed }
}

fn kind(case: &Case, kind: &mut Kind, fair: f64, days: f64) -> Figures {
    let share = |part: u64| 100.0 * part as f64 / kind.days.max(1) as f64;
    let (missed, blocked) = (share(kind.missed), share(kind.missed_blocked));
    let a_day = |count: u64| count as f64 / days;
    // Both ways.
    let keepalive = case.laptop_policy(Arm::Hybrid).agent.keepalive.unwrap_or(KEEPALIVE) as f64;
    let packets = 2.0 * a_day(kind.linked) / 1_000.0 / keepalive;
    let values = [
        missed,
        blocked,
        percentile(&mut kind.staleness, 50.0),
        percentile(&mut kind.staleness, 95.0),
        percentile(&mut kind.staleness, 99.0),
        percentile(&mut kind.to_start, 50.0),
        percentile(&mut kind.to_start, 95.0),
        percentile(&mut kind.to_snapshot, 50.0),
        percentile(&mut kind.to_snapshot, 95.0),
        fair,
        a_day(kind.contacts),
        a_day(kind.dials),
        a_day(kind.wasted),
        packets,
    ];
    let at = |point: usize| percentile(&mut kind.staleness, 100.0 * point as f64 / (POINTS - 1) as f64);
    Figures { values, staleness: (0..POINTS).map(at).collect() }
}
