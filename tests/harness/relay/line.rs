//! One direction of the relay: what is delayed, dropped, or passes.

use super::*;
use crate::dice::Dice;

/// One direction.
pub(super) struct Line {
    state: Mutex<State>,
    wake: Condvar,
    /// So that the directions do not lose the same packets.
    salt: u64,
}

struct State {
    path: Path,
    is_cut: bool,
    /// Packets since the path was set.
    seen: u64,
    /// Packets that ever waited.
    order: u64,
    /// When the line has sent what it has taken, at its rate.
    free_at: Instant,
    /// When the newest packet is due.
    due: Instant,
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Due packets are being sent by the line's thread.
    is_sending: bool,
    traffic: Traffic,
}

impl State {
    fn lose_waiting(&mut self) {
        self.traffic.dropped += self.waiting.len() as u64;
        self.waiting.clear();
    }

    /// When a packet arrives at the other end, if it does.
    fn fate(&mut self, length: usize, salt: u64, now: Instant) -> Option<Instant> {
        let path = self.path;
        let mut dice = Dice::of(path.seed ^ salt.rotate_left(60), self.seen);
        self.seen += 1;
        let is_too_large = path.largest.is_some_and(|largest| length > largest);
        if self.is_cut || is_too_large || dice.fraction() < path.loss {
            return None;
        }
        let mut sent = now;
        if let Some(rate) = path.rate_limit {
            let start = self.free_at.max(now);
            if start - now > QUEUE {
                return None;
            }
            self.free_at = start + Duration::from_secs_f64(length as f64 / rate.max(1) as f64);
            sent = self.free_at;
        }
        if path.jitter.is_zero() {
            // Never before an older one, whatever the path was then.
            self.due = self.due.max(sent + path.delay);
            Some(self.due)
        } else {
            Some(sent + path.delay + path.jitter.mul_f64(dice.fraction()))
        }
    }

    fn passed(&mut self, length: usize) {
        self.traffic.packets += 1;
        self.traffic.bytes += length as u64;
    }
}

impl Line {
    pub(super) fn new(path: Path, salt: u64) -> Self {
        let now = Instant::now();
        let state = State {
            path,
            is_cut: false,
            seen: 0,
            order: 0,
            free_at: now,
            due: now,
            waiting: BinaryHeap::new(),
            is_sending: false,
            traffic: Traffic::default(),
        };
        Self { state: Mutex::new(state), wake: Condvar::new(), salt }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn set(&self, path: Path) {
        let mut state = self.state();
        state.path = path;
        state.seen = 0;
        state.free_at = Instant::now();
    }

    /// It works again.
    pub(super) fn mend(&self) {
        self.state().is_cut = false;
    }

    /// Drops what is under way.
    pub(super) fn lose_waiting(&self) {
        self.state().lose_waiting();
    }

    /// What went through it.
    pub(super) fn traffic(&self) -> Traffic {
        self.state().traffic
    }

    /// Makes its thread look up.
    pub(super) fn wake(&self) {
        self.wake.notify_all();
    }

    pub(super) fn cut(&self) {
        let mut state = self.state();
        state.is_cut = true;
        state.lose_waiting();
    }

    /// Takes a packet: sends it at once where nothing is in its way, else leaves it to the line's thread.
    pub(super) fn carry(&self, packet: &[u8], flow: &Arc<Flow>, send: impl Fn(&[u8], &Flow)) {
        let now = Instant::now();
        let mut state = self.state();
        let Some(due) = state.fate(packet.len(), self.salt, now) else {
            state.traffic.dropped += 1;
            return;
        };
        if due <= now && state.waiting.is_empty() && !state.is_sending {
            state.passed(packet.len());
            drop(state);
            send(packet, flow);
            return;
        }
        state.order += 1;
        let is_next = state.waiting.peek().is_none_or(|Reverse(next)| due < next.due);
        let order = state.order;
        state.waiting.push(Reverse(Waiting { due, order, packet: packet.to_vec(), flow: flow.clone() }));
        drop(state);
        if is_next {
            self.wake.notify_one();
        }
    }

    /// Sends waiting packets when they are due, until the relay ends.
    pub(super) fn run(&self, ended: &AtomicBool, send: impl Fn(&[u8], &Flow)) {
        let mut batch = Vec::new();
        let mut state = self.state();
        while !ended.load(Ordering::SeqCst) {
            let now = Instant::now();
            let next = state.waiting.peek().map(|Reverse(next)| next.due);
            match next {
                Some(due) if due <= now => {
                    while state.waiting.peek().is_some_and(|Reverse(next)| next.due <= now) {
                        let Some(Reverse(waiting)) = state.waiting.pop() else { break };
                        state.passed(waiting.packet.len());
                        batch.push(waiting);
                    }
                    state.is_sending = true;
                    drop(state);
                    batch.drain(..).for_each(|waiting| send(&waiting.packet, &waiting.flow));
                    state = self.state();
                    state.is_sending = false;
                }
                next => {
                    let pause = next.map_or(LOOK_UP, |due| (due - now).min(LOOK_UP));
                    state = self.wake.wait_timeout(state, pause).unwrap().0;
                }
            }
        }
    }
}

/// A packet under way.
struct Waiting {
    due: Instant,
    order: u64,
    packet: Vec<u8>,
    flow: Arc<Flow>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}
