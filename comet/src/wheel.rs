//! The shard's timing wheel: one slot per tick, an entry per connection, nothing to cancel.
//!
//! A connection's deadline moves with every heartbeat; its entry stays where it is. When the entry comes up the
//! connection says when it is due next, and the entry goes there (at most once round the wheel).

use std::time::{Duration, Instant};

/// How exact deadlines are.
pub const TICK: Duration = Duration::from_millis(100);
const SLOTS: usize = 1024;

/// Ticks since the wheel began.
pub type Ticks = u32;

/// Which connection an entry is for: its place in the shard and its serial number there.
pub type Entry = (usize, u32);

/// A hashed wheel of entries.
#[derive(Debug)]
pub struct Wheel {
    began: Instant,
    now: Ticks,
    slots: Vec<Vec<Entry>>,
}

impl Wheel {
    /// An empty wheel that begins now.
    pub fn new(now: Instant) -> Self {
        Self { began: now, now: 0, slots: (0..SLOTS).map(|_| Vec::new()).collect() }
    }

    /// The tick at which `after` from `now` will have passed.
    pub fn after(&self, now: Instant, after: Duration) -> Ticks {
        let ticks = (now - self.began + after).as_millis().div_ceil(TICK.as_millis());
        Ticks::try_from(ticks).unwrap_or(Ticks::MAX)
    }

    /// Has `entry` come up at `due`, or once round from now if that is sooner.
    pub fn insert(&mut self, entry: Entry, due: Ticks) {
        let due = due.clamp(self.now + 1, self.now + SLOTS as Ticks);
        self.slots[due as usize % SLOTS].push(entry);
    }

    /// Moves on to `now`; `due` says for each entry that comes up when it wants to come up again, if ever.
    pub fn advance(&mut self, now: Instant, mut due: impl FnMut(Entry, Ticks) -> Option<Ticks>) {
        let target = Ticks::try_from((now - self.began).as_millis() / TICK.as_millis()).unwrap_or(Ticks::MAX);
        while self.now < target {
            self.now += 1;
            for entry in std::mem::take(&mut self.slots[self.now as usize % SLOTS]) {
                if let Some(next) = due(entry, self.now) {
                    self.insert(entry, next);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_up_when_due_and_again_when_they_say_so() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        wheel.insert((1, 0), wheel.after(start, Duration::from_secs(1)));
        wheel.insert((2, 0), wheel.after(start, Duration::from_secs(500)));
        let mut seen = Vec::new();
        for second in 1..=501 {
            wheel.advance(start + Duration::from_secs(second), |entry, now| {
                let due = if entry.0 == 1 { 10 } else { 5000 };
                if now < due {
                    return Some(due);
                }
                seen.push((entry.0, now));
                None
            });
        }
        assert_eq!(seen, [(1, 10), (2, 5000)]);
    }
}
