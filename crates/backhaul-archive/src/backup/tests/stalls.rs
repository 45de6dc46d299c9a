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
    fn is_content(&self) -> bool {
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

#[test]
fn what_others_may_wait_for_is_not_held_back_until_a_bundle_is_full() {
    let dir = tempfile::tempdir().unwrap();
    // Several batches, none of which ends with a bundle.
    for n in 0..300 {
        fs::write(dir.path().join(format!("{n:03}")), noise(50_000, n)).unwrap();
    }
    let sink = Strict { memory: Memory::new(parameters().id_key), questions: Mutex::default() };
    let start = Instant::now();
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
    let dir = tempfile::tempdir().unwrap();
    for n in 0..300 {
        fs::write(dir.path().join(format!("{n:03}")), noise(50_000, n)).unwrap();
    }
    let sink = Strict { memory: Memory::new(parameters().id_key), questions: Mutex::default() };
    let (looks, start) = (AtomicU64::new(0), Instant::now());
    let now = || {
        if looks.fetch_add(1, Ordering::SeqCst) == 200 {
            // More than a bundle of it.
            while !sink.is_content() && start.elapsed() < SOON {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        later()
    };
    let request = BackupRequest {
        paths: vec![dir.path().to_path_buf()],
        exclude: excludes::Excludes::default(),
        skip: vec![],
        one_file_system: false,
        joints: joints::Joints::default(),
        state: None,
        now: &now,
        progress: Arc::default(),
    };
    backup(&request, &parameters(), &sink).unwrap();
    assert!(start.elapsed() < SOON && looks.into_inner() > 200);
}
