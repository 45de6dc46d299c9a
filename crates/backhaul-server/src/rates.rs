//! How fast bytes are accepted: one bucket for all, and one for each network group that has a bound. A session that
//! would take more does not read, and QUIC tells the sender.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backhaul_net::throttle::Bucket;
use backhaul_schedule::policy::{Admission, Group};

use crate::clock;

type Shared = Arc<Mutex<Bucket>>;

/// All buckets.
#[derive(Default)]
pub struct Rates {
    all: Option<(u64, Shared)>,
    groups: BTreeMap<String, (u64, Shared)>,
}

impl Rates {
    /// Takes new bounds; what has not changed goes on as it was.
    pub fn set(&mut self, admission: &Admission) {
        self.all = admission.bytes_per_s.and_then(|rate| bucket(rate, self.all.take()));
        let mut before = std::mem::take(&mut self.groups);
        for (name, rate) in &admission.bytes_per_group {
            if let Some(bucket) = bucket(*rate, before.remove(name)) {
                self.groups.insert(name.clone(), bucket);
            }
        }
    }

    /// What a session of a group has to pass.
    pub fn of(&self, group: &Group) -> Throttle {
        let group = self.groups.get(group.name());
        Throttle(self.all.iter().chain(group).map(|(_, bucket)| Arc::clone(bucket)).collect())
    }
}

fn bucket(rate: u64, before: Option<(u64, Shared)>) -> Option<(u64, Shared)> {
    match before {
        Some((same, bucket)) if same == rate => Some((same, bucket)),
        _ => NonZeroU64::new(rate).map(|per_s| (rate, Arc::new(Mutex::new(Bucket::new(per_s))))),
    }
}

/// The buckets that one session shares with others.
#[derive(Clone, Default)]
pub struct Throttle(Vec<Shared>);

impl Throttle {
    /// Waits until so many bytes may pass.
    pub async fn pass(&self, bytes: usize) {
        for bucket in &self.0 {
            let now = clock::boot_ms() * 1_000_000;
            let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now, bytes as u64);
            if wait > 0 {
                tokio::time::sleep(Duration::from_nanos(wait)).await;
            }
        }
    }
}
