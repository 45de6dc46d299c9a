//! What is measured while a fleet lives: since when machines wait, and how busy the server is.

use backhaul_schedule::due::{Record, Standing, standing};
use backhaul_schedule::fleet::offset;

use crate::case::MINUTE;
use crate::sim::{Ev, Id, Sim};
use crate::tally::{SAMPLES, Tally};

/// Time between two looks at the server.
const SAMPLE: u64 = 5 * MINUTE;

impl Sim<'_> {
    /// Notes since when a machine has been due and able, for the time that it waits.
    pub(crate) fn watch(&mut self, id: Id) {
        let machine = &self.machines[id];
        let Some(stretch) = machine.online.filter(|stretch| machine.willing && !stretch.place.blocked) else {
            return;
        };
        let begin = self.case.begin();
        let wall = begin + (self.now / 1_000) as i64;
        let added = begin + (machine.added / 1_000) as i64;
        let record = Record { offset: offset(&machine.key), last_success: machine.recorded, added };
        let stands = standing(self.server.policy(machine), &record, wall);
        let (turn, machine) = (machine.turn, &mut self.machines[id]);
        match stands {
            Standing::Due { .. } | Standing::Late { .. } if machine.ready.is_none() => {
                (machine.ready, machine.unstarted) = (Some(self.now), Some(self.now));
            }
            Standing::Due { .. } | Standing::Late { .. } => {}
            Standing::Protected { next } | Standing::Early { next } | Standing::Waiting { next } => {
                let at = u64::try_from(next - begin).unwrap_or(0) * 1_000 + 1_000;
                if at < stretch.to {
                    self.plan(at, Ev::Ready(id, turn));
                }
            }
        }
    }

    pub(crate) fn sample(&mut self) {
        self.plan_in(SAMPLE, Ev::Sample);
        let (day, hour) = self.case.day_of(self.now);
        if day < self.case.warm_up || day % 7 >= 5 {
            return;
        }
        let (running, waiting) = (self.server.fleet.running(), self.server.fleet.waiting());
        let slot = &mut self.tally.load[((hour * 12.0) as usize).min(SAMPLES - 1)];
        *slot = (slot.0 + running as u64, slot.1 + waiting as u64);
        self.tally.sampled += 1;
        if (10.0..18.0).contains(&hour) {
            self.tally.busy.0 += 1;
            self.tally.busy.1 += u64::from(running >= self.case.slots);
        }
    }

    pub(crate) fn finish(mut self) -> Tally {
        for id in 0..self.machines.len() {
            let machine = &self.machines[id];
            let class = machine.class();
            let waits = |since: u64| ((self.now - since) as f64 / MINUTE as f64) as f32;
            // Whoever still waits has waited at least so long.
            let (start, snapshot) = (machine.unstarted.map(waits), machine.ready.map(waits));
            self.tally.kind(class).to_start.extend(start);
            self.tally.kind(class).to_snapshot.extend(snapshot);
        }
        self.tally.judged = self.server.judged + self.server.fleet.judged();
        (self.tally.steps, self.tally.spent) = (self.server.watch.steps(), self.server.watch.spent());
        self.tally
    }
}
