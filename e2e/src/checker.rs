//! Judges what receivers saw: loss, repeats, order, latency from the time a push was due.
//!
//! A [`Receiver`] knows the streams it must see and keeps, per stream, the next number and the numbers it skipped; so
//! a number that comes late is an inversion, one that comes again a repeat, one that never comes a loss. Latency goes
//! into one [`Tally`] per thread; [`judge`] puts it all beside what was [`Offered`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::stamp::Stamp;

/// One connection's view. A few dozen bytes per stream.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    streams: Vec<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    stream: u32,
    next: u32,
    /// Numbers below `next` that did not come, as ranges `from..to`, ascending.
    skipped: Vec<(u32, u32)>,
}

/// What one thread's receivers saw together.
#[derive(Debug)]
pub struct Tally {
    run: u32,
    /// First arrivals of what was expected.
    pub delivered: u64,
    /// Numbers that came again.
    pub repeats: u64,
    /// Numbers that came after a later one of their stream.
    pub inversions: u64,
    /// Stamped pushes of this run on a stream that this receiver was not part of.
    pub strays: u64,
    /// Pushes without a stamp or of another run.
    pub foreign: u64,
    latency: Histogram<u64>,
}

/// What was asked of the servers: per stream, how many pushes were numbered and which of them were not accepted.
#[derive(Clone, Debug, Default)]
pub struct Offered {
    streams: BTreeMap<u32, Sent>,
}

#[derive(Clone, Debug, Default)]
struct Sent {
    next: u32,
    refused: BTreeSet<u32>,
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Verdict {
    /// Pushes accepted by the servers.
    pub accepted: u64,
    /// Pushes the servers refused; whether they arrive all the same is not judged.
    pub refused: u64,
    /// Accepted pushes × their receivers.
    pub expected: u64,
    /// First arrivals, of accepted pushes and of refused ones that came all the same.
    pub delivered: u64,
    /// Accepted pushes × receivers that never came.
    pub lost: u64,
    /// Arrivals beyond the first.
    pub repeats: u64,
    /// Arrivals after a later number of the same stream at the same receiver.
    pub inversions: u64,
    /// Arrivals at a receiver that was not addressed.
    pub strays: u64,
    /// From due to read by the receiver, in microseconds.
    pub latency: Latency,
}

/// Quantiles in microseconds; 0 when nothing arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

impl Receiver {
    /// A receiver that must see every accepted push of these streams.
    pub fn new(streams: &[u32]) -> Self {
        let streams = streams.iter().map(|&stream| Seen { stream, next: 0, skipped: Vec::new() });
        Self { streams: streams.collect() }
    }

    /// Notes one arrival; true when it was the first of its number.
    pub fn note(&mut self, body: &[u8], now: Duration, tally: &mut Tally) -> bool {
        let Some(stamp) = Stamp::decode(body).filter(|stamp| stamp.run == tally.run) else {
            tally.foreign += 1;
            return false;
        };
        let Some(seen) = self.streams.iter_mut().find(|seen| seen.stream == stamp.stream) else {
            tally.strays += 1;
            return false;
        };
        match seen.take(stamp.number) {
            Arrival::Next => {}
            Arrival::Late => tally.inversions += 1,
            Arrival::Again => {
                tally.repeats += 1;
                return false;
            }
        }
        tally.delivered += 1;
        let micros = now.saturating_sub(stamp.due).as_micros() as u64;
        tally.latency.saturating_record(micros);
        true
    }

    /// How many accepted pushes this receiver should have seen, and how many of them it has not.
    fn owed(&self, offered: &Offered) -> (u64, u64) {
        let mut total = (0, 0);
        for seen in &self.streams {
            let Some(sent) = offered.streams.get(&seen.stream) else {
                continue;
            };
            let missing = |number: &u32| {
                *number >= seen.next || seen.skipped.iter().any(|(from, to)| (from..to).contains(&number))
            };
            let skipped: u64 = seen.skipped.iter().map(|(from, to)| u64::from(to - from)).sum();
            let never = skipped + u64::from(sent.next.saturating_sub(seen.next));
            let excused = sent.refused.iter().filter(|number| missing(number)).count() as u64;
            total.0 += u64::from(sent.next) - sent.refused.len() as u64;
            total.1 += never - excused;
        }
        total
    }
}

enum Arrival {
    Next,
    Late,
    Again,
}

impl Seen {
    fn take(&mut self, number: u32) -> Arrival {
        if number >= self.next {
            if number > self.next {
                self.skipped.push((self.next, number));
            }
            self.next = number + 1;
            return Arrival::Next;
        }
        let Some(at) = self.skipped.iter().position(|(from, to)| (*from..*to).contains(&number)) else {
            return Arrival::Again;
        };
        let (from, to) = self.skipped.remove(at);
        if number + 1 < to {
            self.skipped.insert(at, (number + 1, to));
        }
        if from < number {
            self.skipped.insert(at, (from, number));
        }
        Arrival::Late
    }
}

impl Tally {
    /// An empty one for the pushes of `run`.
    pub fn new(run: u32) -> Self {
        let latency = Latency::histogram();
        Self { run, delivered: 0, repeats: 0, inversions: 0, strays: 0, foreign: 0, latency }
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.repeats += other.repeats;
        self.inversions += other.inversions;
        self.strays += other.strays;
        self.foreign += other.foreign;
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
    }

    /// Quantiles of everything noted.
    pub fn latency(&self) -> Latency {
        Latency::of(&self.latency)
    }
}

impl Latency {
    /// An empty histogram of microseconds up to ten minutes.
    pub fn histogram() -> Histogram<u64> {
        Histogram::new_with_bounds(1, 600_000_000, 3).expect("bounds are in order")
    }

    /// Those of a histogram of microseconds.
    pub fn of(micros: &Histogram<u64>) -> Self {
        let at = |quantile| micros.value_at_quantile(quantile);
        Self { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us: micros.max() }
    }
}

impl Offered {
    /// The number of the stream's next push.
    pub fn number(&mut self, stream: u32) -> u32 {
        let sent = self.streams.entry(stream).or_default();
        sent.next += 1;
        sent.next - 1
    }

    /// Notes that a numbered push was not accepted.
    pub fn refuse(&mut self, stream: u32, number: u32) {
        self.streams.entry(stream).or_default().refused.insert(number);
    }

    /// Adds what another pusher offered on other streams.
    pub fn merge(&mut self, other: Self) {
        self.streams.extend(other.streams);
    }

    /// Pushes accepted on one stream.
    pub fn accepted(&self, stream: u32) -> u64 {
        self.streams.get(&stream).map_or(0, Sent::accepted)
    }

    /// Pushes accepted on all streams.
    pub fn accepted_total(&self) -> u64 {
        self.streams.values().map(Sent::accepted).sum()
    }
}

impl Sent {
    fn accepted(&self) -> u64 {
        u64::from(self.next) - self.refused.len() as u64
    }
}

/// Puts what was seen beside what was offered.
pub fn judge<'a>(offered: &Offered, receivers: impl IntoIterator<Item = &'a Receiver>, tally: &Tally) -> Verdict {
    let (mut expected, mut lost) = (0, 0);
    for receiver in receivers {
        let (all, missing) = receiver.owed(offered);
        expected += all;
        lost += missing;
    }
    Verdict {
        accepted: offered.accepted_total(),
        refused: offered.streams.values().map(|sent| sent.refused.len() as u64).sum(),
        expected,
        delivered: tally.delivered,
        lost,
        repeats: tally.repeats,
        inversions: tally.inversions,
        strays: tally.strays,
        latency: tally.latency(),
    }
}

#[cfg(test)]
mod tests;
