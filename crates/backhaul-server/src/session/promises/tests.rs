//! Two, three, and any number of sessions that ask for the same.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn lacking(prefixes: &[u64]) -> Vec<Lacking> {
    prefixes.iter().map(|prefix| Lacking { prefix: *prefix, was_promised: false }).collect()
}

#[test]
fn a_content_is_asked_of_one_session_and_the_other_is_woken_when_it_has_come() {
    let mut promises = Promises::default();
    let (a, b) = (promises.join(), promises.join());
    assert_eq!(promises.decide(a, &lacking(&[1, 2, 3]), 0), Decision::Answer);
    assert_eq!(promises.among(&[9, 2, 3]), [1, 2]);
    assert_eq!(promises.decide(b, &lacking(&[9, 2, 3]), 10), Decision::Wait(QUIET_MS - 10));
    // While it waits, nothing of its question is its own to send.
    assert_eq!(promises.among(&[9]), [0; 0]);
    assert_eq!(promises.arrived(a, MIB, [1, 2].into_iter(), 20), []);
    assert_eq!(promises.arrived(a, MIB, [3].into_iter(), 30), [b]);
    assert_eq!(promises.decide(b, &lacking(&[9]), 40), Decision::Answer);
    assert_eq!(promises.among(&[9]), [0]);
}

#[test]
fn what_comes_between_two_looks_is_looked_for_again() {
    let mut promises = Promises::default();
    let (a, b) = (promises.join(), promises.join());
    assert_eq!(promises.decide(a, &lacking(&[1]), 0), Decision::Answer);
    assert_eq!(promises.among(&[1]), [0]);
    promises.arrived(a, MIB, [1].into_iter(), 1);
    let seen = [Lacking { prefix: 1, was_promised: true }];
    assert_eq!(promises.decide(b, &seen, 1), Decision::LookAgain);
    assert_eq!(promises.decide(b, &[], 1), Decision::Answer);
}

#[test]
fn who_has_gone_or_delivers_nothing_is_not_waited_for() {
    let mut promises = Promises::default();
    let (a, b, c) = (promises.join(), promises.join(), promises.join());
    promises.decide(a, &lacking(&[1, 2]), 0);
    assert_eq!(promises.decide(b, &lacking(&[1]), 500), Decision::Wait(QUIET_MS - 500));
    // To be asked about what is there is no sign of life.
    promises.decide(a, &[], QUIET_MS - 1);
    assert_eq!(promises.decide(b, &lacking(&[1]), QUIET_MS), Decision::Answer);
    // From now on it is of the second that it is awaited.
    assert!(matches!(promises.decide(c, &lacking(&[1]), QUIET_MS), Decision::Wait(_)));
    assert_eq!(promises.leave(b, QUIET_MS), [c]);
    assert_eq!(promises.decide(c, &lacking(&[1]), QUIET_MS), Decision::Answer);
    // What was silent for a while is waited for again when it delivers again.
    promises.arrived(a, MIB, [7].into_iter(), 60_000);
    assert!(matches!(promises.decide(c, &lacking(&[2]), 60_000), Decision::Wait(_)));
}

#[test]
fn no_question_waits_for_ever_and_others_of_whom_it_is_are_not_to_blame() {
    let mut promises = Promises::default();
    let (a, b, c) = (promises.join(), promises.join(), promises.join());
    // How fast it is itself is known.
    promises.decide(b, &lacking(&[7, 8]), 0);
    for content in [7, 8] {
        promises.arrived(b, MIB, [content].into_iter(), 0);
    }
    promises.decide(a, &lacking(&[1]), 0);
    let mut now = 0;
    while promises.decide(b, &lacking(&[1]), now) != Decision::Answer {
        now += 100;
        promises.arrived(a, MIB, [now + 1_000].into_iter(), now);
    }
    assert_eq!(now, PATIENCE_MS);
    promises.decide(c, &lacking(&[2]), now);
    assert!(matches!(promises.decide(b, &lacking(&[2]), now), Decision::Wait(_)));
}

/// Of several that have all in common each sends so many MiB in a second, the last one from so many seconds later on. Returns how long
/// it takes for some GiB, and how often each content was sent.
fn race(speeds: &[u64], later: u64) -> (u64, f64) {
    const CONTENTS: u64 = 2_000;
    let all: Vec<u64> = (0..CONTENTS).collect();
    let mut world = World::new(&vec![all; speeds.len()], 3);
    // A content of each is a MiB; what a client may send so far, in thousandths.
    let mut room = vec![0; speeds.len()];
    let last = speeds.len() - 1;
    while !world.is_done(last) {
        world.now += 1;
        let is_here = if world.now > later * 1_000 { last + 1 } else { last };
        for (n, speed) in speeds.iter().enumerate().take(is_here) {
            world.ask(n);
            room[n] += speed;
            if room[n] >= 1_000 {
                room[n] = if world.clients[n].to_send.is_empty() { 0 } else { room[n] - 1_000 };
                world.send(n);
            }
        }
    }
    let all: usize = world.sent.values().sum();
    (world.now / 1_000 - later, all as f64 / world.sent.len() as f64)
}

#[test]
fn a_slow_client_does_not_hold_a_fast_one_and_equals_share() {
    // Alone it takes 20 s.
    for (speeds, later, most, copies_most) in [
        (&[2, 100][..], 0, 45, 1.1),
        (&[30, 100], 0, 45, 1.1),
        (&[1, 100], 200, 45, 1.1),
        (&[10, 100], 60, 45, 1.1),
        (&[2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 100], 0, 60, 1.3),
        (&[100, 100], 0, 25, 1.05),
        (&[100, 100, 100, 100, 100, 100], 0, 25, 1.15),
    ] {
        let (seconds, copies) = race(speeds, later);
        assert!(seconds <= most && copies < copies_most, "{speeds:?}: {seconds} s, {copies} copies");
    }
}

#[test]
fn promises_have_a_bound() {
    let mut promises = Promises::default();
    let (a, b) = (promises.join(), promises.join());
    let many: Vec<u64> = (0..OWN_PROMISES_MAX as u64 + 10).collect();
    promises.decide(a, &lacking(&many), 0);
    assert_eq!(promises.among(&many).len(), OWN_PROMISES_MAX);
    assert_eq!(promises.decide(b, &lacking(&many[OWN_PROMISES_MAX..]), 0), Decision::Answer);
    // What it has sent makes room again.
    promises.arrived(a, MIB, 0..10, 0);
    promises.decide(a, &lacking(&[1 << 40, 1 << 41]), 0);
    assert_eq!(promises.among(&[1 << 40, 1 << 41]).len(), 2);
    promises.leave(a, 0);
    promises.leave(b, 0);
    assert!(promises.promised.is_empty() && promises.promised.capacity() <= 4_096);
}

/// A client as its server sees it: asks in batches, some ahead, and sends what it was told to, in order.
#[derive(Debug)]
struct Client {
    party: Party,
    unasked: VecDeque<Vec<u64>>,
    asked: VecDeque<Vec<u64>>,
    to_send: VecDeque<u64>,
    /// Its oldest question waits until then.
    waits: Option<u64>,
}

/// A vault with its clients.
struct World {
    promises: Promises,
    clients: Vec<Client>,
    /// How often each content was sent.
    sent: BTreeMap<u64, usize>,
    now: u64,
}

impl World {
    fn new(trees: &[Vec<u64>], batch: usize) -> Self {
        let mut promises = Promises::default();
        let client = |tree: &Vec<u64>| Client {
            party: promises.join(),
            unasked: tree.chunks(batch).map(<[u64]>::to_vec).collect(),
            asked: VecDeque::new(),
            to_send: VecDeque::new(),
            waits: None,
        };
        let clients = trees.iter().map(client).collect();
        Self { promises, clients, sent: BTreeMap::new(), now: 0 }
    }

    fn wake(&mut self, woken: &[Party]) {
        self.clients.iter_mut().filter(|one| woken.contains(&one.party)).for_each(|one| one.waits = None);
    }

    /// It asks as far ahead as it may, and its server answers what it can.
    fn ask(&mut self, n: usize) {
        let client = &mut self.clients[n];
        while client.asked.len() < 4
            && client.to_send.len() < 30
            && let Some(batch) = client.unasked.pop_front()
        {
            client.asked.push_back(batch);
        }
        if client.waits.is_some_and(|until| until > self.now) {
            return;
        }
        client.waits = None;
        while let Some(batch) = client.asked.front() {
            let absent: Vec<u64> =
                batch.iter().filter(|content| !self.sent.contains_key(content)).copied().collect();
            match self.promises.decide(client.party, &lacking(&absent), self.now) {
                Decision::Answer => {
                    client.to_send.extend(absent);
                    // What was drawn of it follows, of which nobody was asked.
                    let woken = self.promises.arrived(client.party, 20_000, [].into_iter(), self.now);
                    assert_eq!(woken, []);
                }
                Decision::Wait(ms) => {
                    client.waits = Some(self.now + ms);
                    return;
                }
                Decision::LookAgain => unreachable!("nothing comes in between"),
            }
            client.asked.pop_front();
        }
    }

    fn send(&mut self, n: usize) {
        if let Some(content) = self.clients[n].to_send.pop_front() {
            *self.sent.entry(content).or_default() += 1;
            let woken = self.promises.arrived(self.clients[n].party, MIB, [content].into_iter(), self.now);
            self.wake(&woken);
        }
    }

    fn leave(&mut self, n: usize) {
        let gone = self.clients.remove(n);
        let woken = self.promises.leave(gone.party, self.now);
        self.wake(&woken);
    }

    fn is_done(&self, n: usize) -> bool {
        let client = &self.clients[n];
        client.unasked.is_empty() && client.asked.is_empty() && client.to_send.is_empty()
    }
}

/// Trees that have much in common, each in an order of its own, without repetitions.
fn trees() -> impl Strategy<Value = Vec<Vec<u64>>> {
    let tree = prop::collection::vec(0_u64..40, 1..60).prop_map(|all| {
        let mut seen = BTreeSet::new();
        all.into_iter().filter(|content| seen.insert(*content)).collect()
    });
    prop::collection::vec(tree, 2..6)
}

proptest! {
    #[test]
    fn all_that_deliver_finish_and_everything_is_sent_once(
        trees in trees(),
        batch in 1_usize..10,
        turns in prop::collection::vec((0_usize..6, any::<bool>()), 0..400),
    ) {
        let mut world = World::new(&trees, batch);
        let (count, mut turns) = (trees.len(), turns.into_iter());
        let mut round = 0;
        while !(0..count).all(|n| world.is_done(n)) {
            // After the drawn turns everybody's comes regularly.
            let (n, asks) = turns.next().map_or((round / 2, round % 2 == 0), |(n, asks)| (n, asks));
            if asks { world.ask(n % count) } else { world.send(n % count) }
            round += 1;
            prop_assert!(round < 10_000, "somebody waits in a circle");
        }
        prop_assert!(world.sent.values().all(|times| *times == 1), "{:?}", world.sent);
        prop_assert!(world.promises.promised.is_empty() && world.promises.waiting.is_empty());
    }

    #[test]
    fn who_falls_silent_or_leaves_keeps_nobody(
        trees in trees(),
        batch in 1_usize..10,
        turns in prop::collection::vec((0_usize..6, 0_u8..3, 0_u64..300), 0..200),
    ) {
        let mut world = World::new(&trees, batch);
        for (n, what, ms) in turns {
            world.now += ms;
            let n = n % world.clients.len();
            match what {
                0 => world.ask(n),
                1 => world.send(n),
                _ if world.clients.len() > 2 => world.leave(n),
                _ => {}
            }
        }
        // The first says nothing any more; each of the others has waited for it long enough at some time.
        let (count, since) = (world.clients.len(), world.now);
        while !(1..count).all(|n| world.is_done(n)) {
            world.now += 10;
            for n in 1..count {
                world.ask(n);
                world.send(n);
            }
            prop_assert!(world.now < since + count as u64 * (QUIET_MS + PATIENCE_MS), "somebody waits for ever");
        }
        (0..count).rev().for_each(|n| world.leave(n));
        prop_assert!(world.promises.promised.is_empty() && world.promises.waiting.is_empty());
    }
}
