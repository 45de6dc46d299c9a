//! What is counted in one run of one arm.

use std::time::Duration;

use crate::case::Case;
use crate::machine::Class;

/// Samples of the server's load: every five minutes of a day.
pub const SAMPLES: usize = 288;

/// A day of one machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Today {
    /// ms online with open gates.
    pub usable: u64,
    /// Of these, where no UDP passes.
    pub blocked: u64,
    /// It got its snapshot.
    pub protected: bool,
}

/// What is counted for one class of machines.
#[derive(Debug, Clone, Default)]
pub struct Kind {
    /// Days with at least half an hour online and willing.
    pub days: u64,
    /// Of these, without a snapshot.
    pub missed: u64,
    /// Of these, in networks that let no UDP pass.
    pub missed_blocked: u64,
    /// Hours since the newest snapshot, at the end of each stretch.
    pub staleness: Vec<f32>,
    /// Minutes from being due and online to the start of the run; time offline in between counts.
    pub to_start: Vec<f32>,
    /// The same to the snapshot.
    pub to_snapshot: Vec<f32>,
    /// Dials and knocks.
    pub dials: u64,
    /// Of these, not answered.
    pub wasted: u64,
    /// Connections that machines of this class made to the server, and answered dials.
    pub contacts: u64,
    /// ms of standing links.
    pub linked: u64,
}

/// All that is counted.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Desktops and laptops.
    pub kinds: [Kind; 2],
    /// By machine: the day that is going on.
    pub today: Vec<Today>,
    /// By machine: days that count with UDP, and days with a snapshot of these.
    pub shares: Vec<(u32, u32)>,
    /// By machine and day, in the order of days: whether a day that counts was protected; for comparisons.
    pub protected: Vec<Vec<Option<bool>>>,
    /// Most starts in one minute.
    pub peak_starts: u64,
    minute: (u64, u64),
    /// Most runs at once.
    pub peak_running: usize,
    /// Most who waited on a connection.
    pub peak_queue: usize,
    /// Sums over working days of runs and of waiting clients, by time of day; days that were sampled.
    pub load: Vec<(u64, u64)>,
    /// See [`Tally::load`].
    pub sampled: u64,
    /// Samples from 10 to 18 h on working days, and those with no slot free.
    pub busy: (u64, u64),
    /// Alerts raised.
    pub alerts: u64,
    /// Snapshots.
    pub successes: u64,
    /// Runs that failed or were cut for good.
    pub failures: u64,
    /// Events that the scheduler took, and how long it took.
    pub steps: u64,
    /// How often it judged a client for that.
    pub judged: u64,
    /// See [`Tally::steps`].
    pub spent: Duration,
}

impl Tally {
    /// Nothing yet.
    pub fn new(case: &Case) -> Self {
        let machines = case.machines();
        Self {
            kinds: [Kind::default(), Kind::default()],
            today: vec![Today::default(); machines],
            shares: vec![(0, 0); machines],
            protected: vec![Vec::new(); machines],
            peak_starts: 0,
            minute: (0, 0),
            peak_running: 0,
            peak_queue: 0,
            load: vec![(0, 0); SAMPLES],
            sampled: 0,
            busy: (0, 0),
            alerts: 0,
            successes: 0,
            failures: 0,
            steps: 0,
            judged: 0,
            spent: Duration::ZERO,
        }
    }

    /// A class's.
    pub fn kind(&mut self, class: Class) -> &mut Kind {
        &mut self.kinds[class as usize]
    }

    /// A run has begun.
    pub fn started(&mut self, now: u64) {
        let minute = now / 60_000;
        self.minute = if self.minute.0 == minute { (minute, self.minute.1 + 1) } else { (minute, 1) };
        self.peak_starts = self.peak_starts.max(self.minute.1);
    }

    /// A machine's day is over.
    pub fn close_day(&mut self, machine: usize, class: Class, counts: bool) {
        let today = std::mem::take(&mut self.today[machine]);
        let usable = today.usable >= 30 * 60_000;
        if !counts {
            return;
        }
        self.protected[machine].push(usable.then_some(today.protected));
        if !usable {
            return;
        }
        let missed = u64::from(!today.protected);
        let blocked = missed * u64::from(today.usable - today.blocked < 30 * 60_000);
        let kind = self.kind(class);
        kind.days += 1;
        kind.missed += missed;
        kind.missed_blocked += blocked;
        if today.usable - today.blocked < 30 * 60_000 {
            return;
        }
        let (days, protected) = &mut self.shares[machine];
        *days += 1;
        *protected += u32::from(today.protected);
    }

    /// Events that the scheduler takes in a second on this machine.
    pub fn steps_per_second(&self) -> f64 {
        self.steps as f64 / self.spent.as_secs_f64().max(1e-9)
    }
}
