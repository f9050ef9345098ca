//! How long clients heard nothing of what they are pushed all the time: so a pause of whoever serves it looks to them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Duration;

use super::Record;

/// For each of these times, by stream: the longest that one of its clients heard nothing of it. A silence counts wherever
/// it meets the time: from when it began, though that was before, and until its end or that of the time.
///
/// Of streams that nothing is pushed to for long it says nothing.
pub fn silences(record: &Record, times: &[Range<Duration>]) -> Vec<BTreeMap<u32, Duration>> {
    let dues: HashMap<_, _> = record.pushed.iter().map(|push| ((push.stream, push.number), push.due)).collect();
    let mut longest = vec![BTreeMap::new(); times.len()];
    for life in &record.lives {
        for (stream, arrivals) in &life.seen {
            let heard = arrivals.iter().filter_map(|arrival| {
                let due = dues.get(&(*stream, arrival.number))?;
                Some(arrival.time(*due))
            });
            let heard: Vec<Duration> = heard.collect();
            for (during, longest) in times.iter().zip(&mut longest) {
                let silence = silence(&heard, during);
                let known: &mut Duration = longest.entry(*stream).or_default();
                *known = silence.max(*known);
            }
        }
    }
    longest
}

/// The longest time between two of these moments, which are in order, as far as it meets `during`.
fn silence(heard: &[Duration], during: &Range<Duration>) -> Duration {
    let first = heard.partition_point(|at| *at <= during.start);
    let last = heard.partition_point(|at| *at < during.end);
    let before = first.checked_sub(1).map_or(during.start, |before| heard[before]);
    let mut longest = Duration::ZERO;
    let mut since = before;
    for at in heard[first..last.max(first)].iter().chain([&during.end]) {
        longest = longest.max(at.saturating_sub(since));
        since = *at;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::push::Pushed;
    use crate::crowd::{Arrival, Life};

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A client that heard push n of stream 3, which is due at second n, so many milliseconds later.
    fn life(late: &[(u32, u64)]) -> Life {
        let mut life = Life::new(vec![3]);
        let arrivals = late.iter().map(|(number, millis)| Arrival { number: *number, micros: *millis as u32 * 1000 });
        life.seen.insert(3, arrivals.collect());
        life
    }

    fn longest(lives: Vec<Life>, during: Range<u64>) -> Option<u64> {
        let push = |number: u32| {
            let due = at(1000 * u64::from(number));
            Pushed { stream: 3, number, due, sent: due, answered: due, accepted: true, records: 1 }
        };
        let (marks, reasons, pushed) = (Vec::new(), BTreeMap::new(), (0..10).map(push).collect());
        let record = Record { began: at(0), ended: at(10_000), marks, lives, pushed, reasons };
        let found = silences(&record, &[at(during.start)..at(during.end)]);
        found[0].get(&3).map(|silence| silence.as_millis() as u64)
    }

    #[test]
    fn a_silence_is_that_of_the_client_who_waited_longest() {
        let steady = life(&[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
        let held_up = life(&[(0, 0), (1, 0), (2, 1700), (3, 700), (4, 0)]);
        assert_eq!(longest(vec![steady.clone()], 500..3500), Some(1000));
        assert_eq!(longest(vec![steady, held_up], 500..3500), Some(2500), "from 1 s until 3.5 s, where it is cut off");
    }

    #[test]
    fn a_silence_counts_from_its_beginning_and_until_the_end_of_the_time() {
        let held_up = || vec![life(&[(0, 0), (1, 0), (2, 4000), (3, 3000), (7, 0)])];
        assert_eq!(longest(held_up(), 3000..6500), Some(5000), "it began at 1 s and ended at 6 s");
        assert_eq!(longest(held_up(), 6500..7500), Some(1000));
        assert_eq!(longest(held_up(), 8000..10_000), Some(3000), "nothing came after 7 s");
        assert_eq!(longest(held_up(), 6100..6900), Some(900), "nothing at all came in it");
    }

    #[test]
    fn who_heard_nothing_ever_says_nothing() {
        assert_eq!(longest(vec![Life::new(vec![3])], 0..1000), None);
        assert_eq!(longest(vec![life(&[(5, 0)])], 1000..3000), Some(2000), "who heard something was silent before");
    }
}
