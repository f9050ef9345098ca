//! How long others are kept waiting for a comet that lags.
//!
//! After an outage there is a backlog, and comets take it at paces that differ a little: one that is behind is waited for,
//! or it would be dropped for it. One that is so much slower that the others do nothing most of the time is waited for no
//! longer than a comet may owe an answer; from then on `--comet-backlog` decides what becomes of it.

use std::time::Duration;

use tokio::time::Instant;

/// At most so much counts between two looks: longer, and this process stood still.
const STEP: Duration = Duration::from_millis(100);

/// What is left of it for one comet.
#[derive(Debug)]
pub(super) struct Patience {
    most: Duration,
    /// Time for which the others waited, less the time for which they did not.
    spent: Duration,
    is_out: bool,
    last: Option<(Instant, bool)>,
}

impl Patience {
    /// Others wait no longer than this.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, spent: Duration::ZERO, is_out: false, last: None }
    }

    /// Whether it is used up, now that the comet holds up the others, or does not.
    pub(super) fn is_out(&mut self, holds_up: bool, now: Instant) -> bool {
        if let Some((before, held_up)) = self.last.replace((now, holds_up)) {
            let passed = now - before;
            self.spent = match held_up {
                true => (self.spent + passed.min(STEP)).min(self.most),
                false => self.spent.saturating_sub(passed),
            };
        }
        if self.spent >= self.most {
            if !std::mem::replace(&mut self.is_out, true) {
                tracing::warn!("a comet takes less than half of what the others could: it is not waited for any more");
            }
        } else if self.spent.is_zero() {
            self.is_out = false;
        }
        self.is_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(10);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Lets the others wait and then work for so long, again and again; returns after how long they wait no more.
    fn out_after(patience: &mut Patience, now: &mut Instant, waits: Duration, works: Duration) -> Option<Duration> {
        let began = *now;
        while *now < began + Duration::from_secs(3600) {
            if patience.is_out(true, *now) {
                return Some(*now - began);
            }
            *now += waits;
            patience.is_out(false, *now);
            *now += works;
        }
        None
    }

    #[test]
    fn a_comet_that_is_a_little_slower_is_waited_for_however_long_it_takes() {
        let (mut patience, mut now) = (Patience::new(MOST), Instant::now());
        assert_eq!(out_after(&mut patience, &mut now, ms(5), ms(6)), None);
    }

    #[test]
    fn a_comet_for_which_the_others_wait_most_of_the_time_is_waited_for_no_longer_than_one_that_owes_an_answer() {
        let (mut patience, mut now) = (Patience::new(MOST), Instant::now());
        let after = out_after(&mut patience, &mut now, ms(9), ms(1)).unwrap();
        assert!((MOST..MOST * 3 / 2).contains(&after), "{after:?}");
        // It is let go meanwhile and comes back: it has used up its time until the others have had theirs.
        patience.is_out(false, now);
        now += ms(5000);
        assert!(patience.is_out(true, now));
        patience.is_out(false, now);
        now += MOST;
        assert!(!patience.is_out(true, now));
    }

    #[test]
    fn a_process_that_stood_still_takes_that_for_nobodys_waiting() {
        let (mut patience, now) = (Patience::new(MOST), Instant::now());
        assert!(!patience.is_out(true, now));
        assert!(!patience.is_out(true, now + MOST * 2));
    }
}
