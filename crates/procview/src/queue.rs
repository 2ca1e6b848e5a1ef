//! Whose turn it is: requests of all VEs, answered in turns, and no VE's faster than its allowance.
//!
//! The kernel hands requests over in the order in which they were made. Taken in that order, a
//! thousand readers in one VE would keep the one reader of another waiting behind them, and a VE with a
//! tenth of a processor could keep the server busy on a whole one. So requests are sorted by VE as
//! soon as they are read, one of each VE is answered in turn, and a VE that asks more than any program
//! needs is answered later: its readers wait, which is all that they can notice.
//!
//! What waits is bounded by the VE's processes: each waits for one answer.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Requests that a VE may make in a second, for as long as it likes: `top` in a hundred terminals.
/// Answering them takes a few hundredths of a processor.
const PER_SECOND: u32 = 5_000;

/// Requests that a VE may make at once beyond that: a shell that reads a file byte by byte makes
/// some thousand.
const BURST: u32 = 20_000;

/// Who asks: a VE by its number, or the node itself.
pub(crate) type Asker = Option<ve::VeId>;

/// Waiting requests.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    lanes: BTreeMap<Asker, Lane<T>>,
    /// Who is answered next, among those with something waiting.
    turns: VecDeque<Asker>,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<T>,
    /// Requests that may be answered at once, in thousandths.
    allowance: u64,
    counted: Instant,
}

impl<T> Lane<T> {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        let microseconds = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let earned = microseconds.saturating_mul(u64::from(PER_SECOND)) / 1_000;
        self.allowance = self
            .allowance
            .saturating_add(earned)
            .min(u64::from(BURST) * 1_000);
        // What is less than a microsecond counts the next time.
        self.counted += Duration::from_micros(microseconds);
    }
}

impl<T> Queue<T> {
    /// Nothing waits yet.
    pub(crate) fn new() -> Self {
        Self {
            lanes: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Adds a request.
    pub(crate) fn push(&mut self, asker: Asker, request: T, now: Instant) {
        let lane = self.lanes.entry(asker).or_insert_with(|| Lane {
            waiting: VecDeque::new(),
            allowance: u64::from(BURST) * 1_000,
            counted: now,
        });
        if lane.waiting.is_empty() {
            self.turns.push_back(asker);
        }
        lane.waiting.push_back(request);
    }

    /// Takes the request that is to be answered next, if any is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<T> {
        for _ in 0..self.turns.len() {
            let asker = self.turns.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&asker) else {
                continue;
            };
            lane.refill(now);
            // The node itself is not held back.
            if asker.is_some() && lane.allowance < 1_000 {
                self.turns.push_back(asker);
                continue;
            }
            lane.allowance = lane.allowance.saturating_sub(1_000);
            let request = lane.waiting.pop_front();
            if !lane.waiting.is_empty() {
                self.turns.push_back(asker);
            }
            if request.is_some() {
                return request;
            }
        }
        None
    }

    /// How long nothing is due, when something waits.
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        let lanes = self
            .turns
            .iter()
            .filter_map(|asker| Some((asker, self.lanes.get(asker)?)));
        let waits = lanes.map(|(asker, lane)| {
            if asker.is_none() || lane.allowance >= 1_000 {
                return Duration::ZERO;
            }
            let missing = 1_000 - lane.allowance;
            let earned = Duration::from_micros((missing * 1_000).div_ceil(u64::from(PER_SECOND)));
            (lane.counted + earned).saturating_duration_since(now)
        });
        waits.min()
    }

    /// Forgets who asked nothing for so long that its allowance is full again.
    pub(crate) fn forget_idle(&mut self, now: Instant) {
        self.lanes.retain(|_, lane| {
            lane.refill(now);
            !lane.waiting.is_empty() || lane.allowance < u64::from(BURST) * 1_000
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ve::VeId;

    fn asker(number: u32) -> Asker {
        VeId::new(number).ok()
    }

    #[test]
    fn each_has_its_turn() {
        let now = Instant::now();
        let mut queue = Queue::new();
        for number in 0..1_000 {
            queue.push(asker(101), number, now);
        }
        queue.push(asker(102), 5_000, now);
        queue.push(asker(102), 5_001, now);
        queue.push(None, 9_000, now);
        let order: Vec<i32> = (0..6).filter_map(|_| queue.pop(now)).collect();
        assert_eq!(order, [0, 5_000, 9_000, 1, 5_001, 2]);
        let rest = std::iter::from_fn(|| queue.pop(now)).count();
        assert_eq!(rest, 1_000 - 3);
        assert_eq!(queue.pause(now), None);
    }

    #[test]
    fn who_asks_too_much_waits_and_others_do_not() {
        let mut now = Instant::now();
        let mut queue = Queue::new();
        for number in 0..BURST + 10_000 {
            queue.push(asker(101), number, now);
        }
        let at_once = std::iter::from_fn(|| queue.pop(now)).count();
        assert_eq!(at_once, usize::try_from(BURST).unwrap());
        let pause = queue.pause(now).unwrap();
        assert!(
            pause > Duration::ZERO && pause < Duration::from_millis(1),
            "{pause:?}"
        );
        queue.push(asker(102), 77, now);
        assert_eq!(queue.pause(now), Some(Duration::ZERO));
        assert_eq!(queue.pop(now), Some(77));
        // A second later, a second's worth.
        now += Duration::from_secs(1);
        let later = std::iter::from_fn(|| queue.pop(now)).count();
        assert_eq!(later, usize::try_from(PER_SECOND).unwrap());
        // The wait that is told is enough.
        now += queue.pause(now).unwrap();
        assert!(queue.pop(now).is_some());
    }

    #[test]
    fn little_pauses_add_up() {
        let mut now = Instant::now();
        let mut queue = Queue::new();
        for number in 0..BURST + 100 {
            queue.push(asker(101), number, now);
        }
        while queue.pop(now).is_some() {}
        let mut answered = 0;
        for _ in 0..11_765 {
            now += Duration::from_nanos(1_700);
            answered += usize::from(queue.pop(now).is_some());
        }
        // 20 ms in steps of 1.7 us.
        assert_eq!(answered, 100);
    }

    #[test]
    fn who_is_quiet_is_forgotten() {
        let mut now = Instant::now();
        let mut queue = Queue::new();
        queue.push(asker(101), 1, now);
        queue.forget_idle(now);
        assert_eq!(queue.pop(now), Some(1));
        queue.forget_idle(now);
        assert_eq!(queue.lanes.len(), 1);
        now += Duration::from_secs(60);
        queue.forget_idle(now);
        assert!(queue.lanes.is_empty());
    }
}
