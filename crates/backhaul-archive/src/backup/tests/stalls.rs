//! A sink whose answers wait until it has all that it wanted before: somebody else may wait for that, and hold back what the next
//! answer depends on.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use backhaul_object::Compressed;
use backhaul_object::source::{Answer, Answers, Query, Signatures, Spot};

use super::*;

/// Longer than it takes.
const SOON: Duration = Duration::from_secs(30);

struct Strict {
    memory: Memory,
    questions: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    wanted: Vec<Query>,
    waiting: VecDeque<(Vec<Query>, Sender<Vec<Answer>>)>,
}

impl Strict {
    fn answers(&self, queries: &[Query]) -> Vec<Answer> {
        self.memory.ask(queries.to_vec()).unwrap().recv().unwrap()
    }

    /// It was told that something is wanted, and has all of that.
    fn has_what_it_wanted(&self) -> bool {
        let open = self.questions.lock().unwrap();
        !open.wanted.is_empty() && !self.answers(&open.wanted).contains(&Answer::Want)
    }

    /// Answers what can be answered.
    fn go_on(&self) {
        let mut open = self.questions.lock().unwrap();
        while !self.answers(&open.wanted).contains(&Answer::Want)
            && let Some((queries, answer)) = open.waiting.pop_front()
        {
            let answers = self.answers(&queries);
            open.wanted.extend(queries);
            let _ = answer.send(answers);
        }
    }
}

impl ObjectSink for Strict {
    fn ask(&self, queries: Vec<Query>) -> Result<Answers, TransferError> {
        let (answer, answers) = channel();
        self.questions.lock().unwrap().waiting.push_back((queries, answer));
        self.go_on();
        Ok(answers)
    }

    fn sign(&self, spots: Vec<Spot>) -> Signatures {
        self.memory.sign(spots)
    }

    fn put(&self, object: Compressed) -> Result<u64, TransferError> {
        let puts = self.memory.put(object)?;
        self.go_on();
        Ok(puts)
    }

    fn durable(&self) -> u64 {
        self.memory.durable()
    }

    fn failure(&self) -> Option<TransferError> {
        None
    }
}

/// Some batches of files, none of which ends with a bundle.
fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..300 {
        fs::write(dir.path().join(format!("{n:03}")), noise(50_000, n)).unwrap();
    }
    dir
}

fn strict() -> Strict {
    Strict { memory: Memory::new(parameters().id_key), questions: Mutex::default() }
}

#[test]
fn what_others_may_wait_for_is_not_held_back_until_a_bundle_is_full() {
    let (dir, sink, start) = (files(), strict(), Instant::now());
    let saved = std::thread::scope(|scope| {
        let running = scope.spawn(|| save(dir.path(), None, &sink, later));
        while !running.is_finished() && start.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Whoever waits for ever is let go, so that the test ends.
        sink.questions.lock().unwrap().waiting.clear();
        running.join().unwrap()
    });
    assert!(start.elapsed() < SOON);
    restored_equals(&sink.memory, saved.unwrap().root, dir.path());
}

/// A file in the middle cannot be read before all is there that was wanted so far.
#[test]
fn nor_is_it_while_a_disk_is_waited_for() {
    let (dir, sink, start) = (files(), strict(), Instant::now());
    let looks = AtomicU64::new(0);
    let now = || {
        if looks.fetch_add(1, Ordering::SeqCst) == 200 {
            while !sink.has_what_it_wanted() && start.elapsed() < SOON {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        later()
    };
    save(dir.path(), None, &sink, now).unwrap();
    assert!(start.elapsed() < SOON && looks.into_inner() > 200);
}
