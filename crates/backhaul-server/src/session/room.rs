//! Memory for objects between the network and the disk: all sessions share it, so that it does not grow with their number.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use backhaul_object::FormatError;
use backhaul_object::seal::Unpacker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// KiB of objects that have arrived and are not in a pack yet.
const UNDER_WAY_KIB: u32 = 48 << 10;
/// Bytes that may be under way to all sessions together, and to one of them at most and at least.
const WINDOWS: u32 = 64 << 20;
const WINDOW_MAX: u32 = 32 << 20;
const WINDOW_MIN: u32 = 1 << 20;

/// What sessions share.
pub(super) struct Room {
    under_way: Arc<Semaphore>,
    sessions: AtomicU32,
    /// Contexts that nobody uses; each holds room for the largest plaintext that it has seen.
    unpackers: Mutex<Vec<Unpacker>>,
    returned: Condvar,
    /// Contexts that may still be made.
    unmade: AtomicU32,
}

/// A session that takes objects in.
pub(super) struct Guest(Arc<Room>);

/// An object's share of the room, until it is dropped.
pub(super) struct Share(
    #[allow(dead_code, reason = "it is given back when it is dropped")] OwnedSemaphorePermit,
);

impl Room {
    /// Room in which so many objects are unpacked at once: as many as there are processors.
    pub fn new(processors: u32) -> Arc<Self> {
        Arc::new(Self {
            under_way: Arc::new(Semaphore::new(UNDER_WAY_KIB as usize)),
            sessions: AtomicU32::new(0),
            unpackers: Mutex::default(),
            returned: Condvar::new(),
            unmade: AtomicU32::new(processors.max(1)),
        })
    }

    /// Lets a session in.
    pub fn enter(self: &Arc<Self>) -> Guest {
        self.sessions.fetch_add(1, Ordering::SeqCst);
        Guest(Arc::clone(self))
    }

    /// Waits for a share for an object of so many bytes. Whoever has one needs nothing more of the room than an unpacker,
    /// for a moment, until the object is in a pack: so nobody waits for ever.
    pub async fn share(&self, bytes: usize) -> Option<Share> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).clamp(1, UNDER_WAY_KIB);
        Arc::clone(&self.under_way).acquire_many_owned(kib).await.ok().map(Share)
    }

    /// Does something with an unpacker; waits for one while all are in use. Blocks.
    pub fn unpack<T>(&self, work: impl FnOnce(&mut Unpacker) -> T) -> Result<T, FormatError> {
        let mut unpacker = self.take()?;
        let done = work(&mut unpacker);
        self.unpackers.lock().unwrap_or_else(PoisonError::into_inner).push(unpacker);
        self.returned.notify_one();
        Ok(done)
    }

    fn take(&self) -> Result<Unpacker, FormatError> {
        let mut idle = self.unpackers.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(unpacker) = idle.pop() {
                return Ok(unpacker);
            }
            let less = |unmade: u32| unmade.checked_sub(1);
            if self.unmade.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
                return Unpacker::new().inspect_err(|_| {
                    self.unmade.fetch_add(1, Ordering::SeqCst);
                });
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Guest {
    /// How many bytes may be under way to this session.
    pub fn window(&self) -> u32 {
        (WINDOWS / self.0.sessions.load(Ordering::SeqCst).max(1)).clamp(WINDOW_MIN, WINDOW_MAX)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;

    #[test]
    fn windows_of_all_sessions_together_have_a_bound_that_few_of_them_do_not_feel() {
        let room = Room::new(1);
        let first = room.enter();
        assert_eq!(first.window(), WINDOW_MAX);
        let others: Vec<Guest> = (0..49).map(|_| room.enter()).collect();
        assert!(first.window() < 2 << 20 && first.window() * 50 <= WINDOWS);
        drop(others);
        assert_eq!(first.window(), WINDOW_MAX);
    }

    #[tokio::test]
    async fn an_object_waits_while_others_have_all_of_the_room_and_the_largest_has_its_turn() {
        let room = Room::new(1);
        let most = (UNDER_WAY_KIB as usize) << 10;
        let some = room.share(most - (1 << 20)).await.unwrap();
        let other = room.share(1 << 20).await.unwrap();
        let wait = tokio::time::timeout(Duration::from_millis(20), room.share(1));
        assert!(wait.await.is_err());
        drop((some, other));
        drop(room.share(10 * most).await.unwrap());
    }

    #[test]
    fn no_more_unpackers_are_made_than_there_are_processors() {
        let room = Room::new(2);
        let (most, now) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        room.unpack(|_| {
                            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::yield_now();
                            now.fetch_sub(1, Ordering::SeqCst);
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
        assert!(room.unpackers.lock().unwrap().len() <= 2);
    }
}
