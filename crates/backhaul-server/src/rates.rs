//! How fast bytes are accepted: one bucket for all, and one for each network group that has a bound. A session that
//! would take more does not read, and QUIC tells the sender.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backhaul_net::throttle::{self, Bucket};
use backhaul_schedule::policy::{Admission, Group};

use crate::clock;

/// How long a session goes by the buckets it has found: bounds change, and machines move.
const LOOK_AGAIN_MS: u64 = 1_000;

/// A bucket that sessions share.
pub type Shared = Arc<Mutex<Bucket>>;

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
    pub fn of(&self, group: &Group) -> Vec<Shared> {
        let group = self.groups.get(group.name());
        self.all.iter().chain(group).map(|(_, bucket)| Arc::clone(bucket)).collect()
    }
}

fn bucket(rate: u64, before: Option<(u64, Shared)>) -> Option<(u64, Shared)> {
    match before {
        Some((same, bucket)) if same == rate => Some((same, bucket)),
        _ => NonZeroU64::new(rate).map(|per_s| (rate, Arc::new(Mutex::new(Bucket::new(per_s))))),
    }
}

/// The buckets that one session shares with others.
pub struct Throttle {
    find: Box<dyn Fn() -> Vec<Shared> + Send + Sync>,
    found: Vec<Shared>,
    /// When they are looked for again, in ms since boot.
    again: u64,
}

impl Throttle {
    /// Goes by the buckets that `find` finds.
    pub fn new(find: impl Fn() -> Vec<Shared> + Send + Sync + 'static) -> Self {
        Self { find: Box::new(find), found: Vec::new(), again: 0 }
    }

    /// Waits until so many bytes may pass.
    pub async fn pass(&mut self, bytes: usize) {
        let wait = self.take(clock::boot_ms(), bytes as u64);
        throttle::pause(wait).await;
    }

    /// Takes permission for so many bytes of each bucket, and returns how long to wait until all have given it.
    fn take(&mut self, now_ms: u64, bytes: u64) -> Duration {
        if now_ms >= self.again {
            (self.found, self.again) = ((self.find)(), now_ms + LOOK_AGAIN_MS);
        }
        let take = |bucket: &Shared| {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            Duration::from_nanos(bucket.take(now_ms * 1_000_000, bytes))
        };
        self.found.iter().map(take).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use backhaul_schedule::policy::Policies;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn policies(text: &str) -> Policies {
        crate::policies::read(text).unwrap()
    }

    #[test]
    fn a_session_goes_by_the_group_in_which_it_is_and_by_the_bounds_of_now() {
        let text = "[groups]\nslow = [\"10.1.0.0/16\"]\n[admission]\nbytes_per_group = { slow = \"1MiB\" }\n";
        let (slow, free) = ("10.1.2.3", "10.2.2.3");
        let place = Arc::new(Mutex::new((policies(text), slow)));
        let rates = Arc::new(Mutex::new(Rates::default()));
        rates.lock().unwrap().set(&place.lock().unwrap().0.admission);
        let finds = (Arc::clone(&place), Arc::clone(&rates));
        let mut throttle = Throttle::new(move || {
            let (policies, at) = &*finds.0.lock().unwrap();
            finds.1.lock().unwrap().of(&policies.group(at.parse().unwrap()))
        });
        assert!(throttle.take(0, 2 * MIB) > Duration::from_secs(1));
        // It moves, and is free within a second; back again it waits for what it has taken here.
        place.lock().unwrap().1 = free;
        assert_eq!(throttle.take(LOOK_AGAIN_MS, 100 * MIB), Duration::ZERO);
        place.lock().unwrap().1 = slow;
        assert!(throttle.take(2 * LOOK_AGAIN_MS, MIB) > Duration::ZERO);
        // A bound for all is the one that lasts longer, not one after the other.
        let both = text.replace("bytes_per_group", "bytes_per_s = \"512KiB\"\nbytes_per_group");
        rates.lock().unwrap().set(&policies(&both).admission);
        let wait = throttle.take(100 * LOOK_AGAIN_MS, 4 * MIB);
        assert!(wait > Duration::from_secs(7) && wait <= Duration::from_secs(8), "{wait:?}");
    }
}
