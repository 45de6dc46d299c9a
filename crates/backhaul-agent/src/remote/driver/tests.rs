//! How long a server is borne with.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// A session that is open, and what it says of its end.
fn open() -> (Driver, Arc<Shared>) {
    let (answer, _answered) = oneshot::channel();
    let shared = Arc::new(Shared::default());
    let mut driver = Driver::new(Opening::default(), Arc::clone(&shared), answer);
    driver.answer = None;
    (driver, shared)
}

fn ago(time: Duration) -> Stopwatch {
    Stopwatch::started(time).unwrap()
}

#[test]
fn a_list_of_snapshots_that_goes_on_for_ten_minutes_is_given_up_however_much_is_said() {
    for (asked, is_given_up) in [(LISTING - Duration::from_secs(60), false), (LISTING, true)] {
        let (mut driver, shared) = open();
        let (reply, _rows) = std::sync::mpsc::channel();
        driver.lists.push((reply, ago(asked)));
        // A part of the list has only just arrived.
        driver.heard = Stopwatch::start();
        driver.on_beat();
        assert_eq!(driver.closing, is_given_up, "{asked:?}");
        let why = shared.failure().map(|failure| failure.error.to_string());
        assert_eq!(why.is_some_and(|why| why.contains("its list of snapshots has no end")), is_given_up);
    }
}

#[test]
fn a_server_that_owes_an_answer_and_says_nothing_is_given_up_and_one_that_owes_none_is_not() {
    for (owes, is_given_up) in [(false, false), (true, true)] {
        let (mut driver, _shared) = open();
        let (reply, _figures) = std::sync::mpsc::channel();
        if owes {
            driver.stats.push(reply);
        }
        driver.heard = ago(STALL);
        driver.on_beat();
        assert_eq!(driver.closing, is_given_up);
    }
}

#[test]
fn a_server_that_takes_objects_and_never_says_that_they_are_safe_is_not_waited_for_without_end() {
    let shared = Arc::new(Shared::default());
    let mut driver = Driver::new(Opening::default(), Arc::clone(&shared), oneshot::channel().0);
    assert_eq!(driver.patience(), SILENCE, "it is not let in yet");
    driver.answer = None;
    assert_eq!(driver.patience(), Duration::MAX, "there is nothing to be said");
    shared.left.store(3, Ordering::SeqCst);
    shared.durable.store(2, Ordering::SeqCst);
    assert_eq!(driver.patience(), STALL);
    shared.durable.store(3, Ordering::SeqCst);
    assert_eq!(driver.patience(), Duration::MAX);
}
