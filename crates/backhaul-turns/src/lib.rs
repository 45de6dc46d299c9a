//! Work shared out among threads, and taken back in the order in which it was given.
//!
//! [`turns`] makes three ends: a [`Giver`] for tasks, a [`Worker`] for each thread, and [`Results`] for whoever takes what became
//! of them. A task goes to the thread that is free first. If task n went to thread n mod W instead, what comes in a pattern (a long
//! one, a short one, a long one) would give one thread all that is long, and the others would wait for it.
//!
//! Invariants:
//! - results come in the order of their tasks, each once, whichever thread was how fast;
//! - no more tasks are under way than was said, from when they are given until their results are taken: [`Giver::give`] waits;
//! - nobody waits for an end that is gone; a worker whose results nobody takes stops after the task that it is at, and what was given is
//!   let go of.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use thiserror::Error;

/// How often whoever waits for a result looks whether there is a thread left that could have it.
const LOOK: Duration = Duration::from_millis(500);

/// The other ends are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the others are gone")]
pub struct Gone;

/// Takes tasks.
#[derive(Debug)]
pub struct Giver<T, R> {
    tasks: Sender<(T, Sender<R>)>,
    order: Sender<Receiver<R>>,
}

/// One for each thread.
#[derive(Debug)]
pub struct Worker<T, R> {
    tasks: Receiver<(T, Sender<R>)>,
    alive: Arc<()>,
}

/// What becomes of the tasks.
#[derive(Debug)]
pub struct Results<R> {
    order: Receiver<Receiver<R>>,
    /// Of the task whose turn it is.
    turn: Option<Receiver<R>>,
    /// A task that nobody has taken stays where it is when all who could are gone.
    workers: Weak<()>,
}

/// The three ends; at most `most` tasks are under way, and at least one.
pub fn turns<T, R>(most: usize) -> (Giver<T, R>, Worker<T, R>, Results<R>) {
    let most = most.max(1);
    // Their number is bounded by that of their turns, one of which is with whoever takes the results.
    let (task_in, tasks) = unbounded();
    let (order_in, order) = bounded(most - 1);
    let alive = Arc::new(());
    let results = Results { order, turn: None, workers: Arc::downgrade(&alive) };
    (Giver { tasks: task_in, order: order_in }, Worker { tasks, alive }, results)
}

impl<T, R> Giver<T, R> {
    /// Gives a task, as soon as few enough are under way.
    ///
    /// # Errors
    /// [`Gone`] when nobody does it, or takes what comes of it.
    pub fn give(&self, task: T) -> Result<(), Gone> {
        let (result_in, result) = bounded(1);
        self.order.send(result).map_err(|_| Gone)?;
        self.tasks.send((task, result_in)).map_err(|_| Gone)
    }
}

// Not derived: what goes through need not be `Clone`.
impl<T, R> Clone for Worker<T, R> {
    fn clone(&self) -> Self {
        Self { tasks: self.tasks.clone(), alive: Arc::clone(&self.alive) }
    }
}

impl<T, R> Worker<T, R> {
    /// Does what is given, until there is no giver or nobody takes the results.
    pub fn run(self, mut work: impl FnMut(T) -> R) {
        for (task, result) in &self.tasks {
            if result.send(work(task)).is_err() {
                break;
            }
        }
        // Nobody takes what would come of the rest.
        self.tasks.try_iter().for_each(drop);
    }
}

/// So that whoever works notices.
impl<R> Drop for Results<R> {
    fn drop(&mut self) {
        self.order.try_iter().for_each(drop);
    }
}

impl<R> Results<R> {
    /// The next result; nothing when its task was not given, or is not done, within so much time.
    ///
    /// # Errors
    /// [`Gone`] when there will be none: the giver is gone, or the thread that had the task.
    pub fn within(&mut self, time: Duration) -> Result<Option<R>, Gone> {
        let turn = match self.turn.take() {
            Some(turn) => turn,
            None => match self.order.recv_timeout(time) {
                Ok(turn) => turn,
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(Gone),
            },
        };
        let result = self.of(&turn, time)?;
        self.turn = result.is_none().then_some(turn);
        Ok(result)
    }

    /// The next result; nothing when all that was given is done.
    ///
    /// # Errors
    /// [`Gone`] when the thread that had the task is.
    pub fn take(&mut self) -> Result<Option<R>, Gone> {
        let Ok(turn) = self.turn.take().map_or_else(|| self.order.recv(), Ok) else { return Ok(None) };
        loop {
            if let Some(result) = self.of(&turn, LOOK)? {
                return Ok(Some(result));
            }
        }
    }

    fn of(&self, turn: &Receiver<R>, time: Duration) -> Result<Option<R>, Gone> {
        match turn.recv_timeout(time) {
            Ok(result) => Ok(Some(result)),
            Err(RecvTimeoutError::Disconnected) => Err(Gone),
            Err(RecvTimeoutError::Timeout) if self.workers.strong_count() > 0 => Ok(None),
            // The last of them may have done it meanwhile.
            Err(RecvTimeoutError::Timeout) => turn.try_recv().map(Some).map_err(|_| Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::{scope, sleep};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn results_come_in_order_and_no_more_are_under_way_than_was_said(
            threads in 1_usize..4,
            most in 1_usize..7,
            pauses in prop::collection::vec(0_u64..600, 0..40),
        ) {
            let (giver, worker, mut results) = turns(most);
            let under_way = AtomicUsize::new(0);
            let (taken, highest) = scope(|scope| {
                for _ in 0..threads {
                    let worker = worker.clone();
                    scope.spawn(|| worker.run(|(n, pause)| {
                        sleep(Duration::from_micros(pause));
                        n
                    }));
                }
                drop(worker);
                let (pauses, under_way) = (&pauses, &under_way);
                let given = scope.spawn(move || {
                    let mut highest = 0;
                    for task in pauses.iter().copied().enumerate() {
                        highest = highest.max(under_way.fetch_add(1, Ordering::SeqCst) + 1);
                        giver.give(task).unwrap();
                    }
                    highest
                });
                let mut taken = Vec::new();
                while let Some(n) = results.take().unwrap() {
                    taken.push(n);
                    under_way.fetch_sub(1, Ordering::SeqCst);
                }
                (taken, given.join().unwrap())
            });
            prop_assert_eq!(taken, (0..pauses.len()).collect::<Vec<_>>());
            prop_assert!(highest <= most + 1, "{highest} of {most} and the one that is about to be given");
        }
    }

    #[test]
    fn who_gives_waits_while_all_that_may_be_under_way_is() {
        for most in 1..5 {
            let (giver, _worker, mut results) = turns::<usize, usize>(most);
            let (given_in, given) = bounded(8);
            scope(|scope| {
                scope.spawn(move || {
                    (0..8).take_while(|n| giver.give(*n).is_ok()).for_each(|n| given_in.send(n).unwrap())
                });
                (0..most - 1).for_each(|n| assert_eq!(given.recv(), Ok(n)));
                // Time enough for one more, if it did not wait.
                sleep(Duration::from_millis(20));
                assert!(given.is_empty(), "the next is given when the first is waited for");
                assert_eq!(results.within(Duration::from_millis(1)), Ok(None));
                assert_eq!(given.recv(), Ok(most - 1));
                drop(results);
            });
        }
    }

    #[test]
    fn a_long_task_keeps_one_thread_and_the_others_do_the_rest() {
        let (giver, worker, mut results) = turns(8);
        let (go, wait) = bounded::<()>(0);
        let (done_in, done) = bounded(8);
        scope(|scope| {
            // Gone if something fails here, so that nobody waits.
            let go = go;
            for _ in 0..2 {
                let (worker, wait, done) = (worker.clone(), &wait, &done_in);
                scope.spawn(move || {
                    worker.run(|n| {
                        if n == 0 {
                            wait.recv().unwrap();
                        }
                        done.send(n).unwrap();
                        n
                    });
                });
            }
            (0..5).for_each(|n| giver.give(n).unwrap());
            let others: Vec<_> = (0..4).map(|_| done.recv().unwrap()).collect();
            assert_eq!(others, [1, 2, 3, 4]);
            assert_eq!(results.within(Duration::from_millis(1)), Ok(None));
            go.send(()).unwrap();
            drop(giver);
            let taken: Vec<_> = std::iter::from_fn(|| results.take().unwrap()).collect();
            assert_eq!(taken, [0, 1, 2, 3, 4]);
            assert_eq!(results.within(Duration::ZERO), Err(Gone));
        });
    }

    #[test]
    fn nobody_waits_for_an_end_that_is_gone() {
        let (giver, _worker, results) = turns::<u8, u8>(2);
        drop(results);
        assert_eq!(giver.give(1), Err(Gone));

        let (giver, worker, results) = turns(4);
        (0..3).for_each(|n| giver.give(n).unwrap());
        drop(results);
        let mut done = 0;
        worker.run(|_: u8| done += 1);
        assert_eq!(done, 1, "there was nobody for the first");
        assert_eq!(giver.give(3), Err(Gone));

        let (giver, worker, mut results) = turns::<u8, u8>(2);
        giver.give(1).unwrap();
        drop(worker);
        assert_eq!(results.take(), Err(Gone), "it was with a thread that is gone");
        assert_eq!(giver.give(2), Err(Gone));
    }
}
