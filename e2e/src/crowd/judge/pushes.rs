//! Deliveries: each push beside each client that it was addressed to.

use std::collections::HashMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::bench::push::Pushed;
use crate::checker::Latency;
use crate::crowd::{Arrival, Gap, Life, Record};

/// What is added to the way of a push is at most this.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// How many losses are kept to be shown; all are counted.
const SHOWN: usize = 20;

/// What became of the pushes that were sent during one phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pushes {
    /// Pushes that were answered with a yes.
    pub accepted: u64,
    /// Pushes that were not.
    pub refused: u64,
    /// Accepted pushes × receivers: what was delivered, excused and lost together.
    pub expected: u64,
    /// Those that arrived.
    pub delivered: u64,
    /// Those that did not, and met a gap of their receiver.
    pub excused: u64,
    /// Those that did not, and met none.
    pub lost: u64,
    /// Arrivals beyond the first on one connection.
    pub repeats: u64,
    /// Arrivals after a later number of the same stream on one connection.
    pub inversions: u64,
    /// Arrivals of what an earlier connection of the client saw, or saw something later than.
    pub across: u64,
    /// From due to arrival, of those that were delivered.
    pub latency: Latency,
}

/// A push that one client has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Who.
    pub client: usize,
    /// Which.
    pub push: Pushed,
    /// When the client was out; none of these met the push.
    pub gaps: Vec<Gap>,
}

/// Everything about pushes.
pub(super) struct Deliveries {
    pub phases: Vec<Pushes>,
    pub total: Pushes,
    /// The first few.
    pub losses: Vec<Loss>,
    /// Arrivals that nobody has sent to their receiver.
    pub strays: u64,
    pub on_its_way: Duration,
}

/// A [`Pushes`] that is being counted.
#[derive(Clone)]
struct Count {
    pushes: Pushes,
    latency: Histogram<u64>,
}

/// Per stream its pushes, by number.
type Streams = HashMap<u32, Vec<Pushed>>;

/// Judges every push; `begins` holds where phases begin, the first at zero.
pub(super) fn judge(record: &Record, begins: &[Duration]) -> Deliveries {
    let mut streams = Streams::new();
    for push in &record.pushed {
        streams.entry(push.stream).or_default().push(*push);
    }
    streams.values_mut().for_each(|pushes| pushes.sort_unstable_by_key(|push| push.number));
    let mut judging = Judging {
        ended: record.ended,
        begins,
        way: Way::of(&record.lives, &streams),
        counts: vec![Count::new(); begins.len()],
        losses: Vec::new(),
    };
    for push in &record.pushed {
        let count = judging.count(push);
        *(if push.accepted { &mut count.accepted } else { &mut count.refused }) += 1;
    }
    for (client, life) in record.lives.iter().enumerate() {
        for stream in &life.streams {
            if let Some(pushes) = streams.get(stream) {
                judging.stream(client, life, *stream, pushes);
            }
        }
    }
    let total = judging.counts.iter().fold(Count::new(), Count::plus).done();
    Deliveries {
        phases: judging.counts.iter().map(Count::done).collect(),
        total,
        losses: judging.losses,
        strays: record.lives.iter().map(|life| strays(life, &streams)).sum(),
        on_its_way: judging.way.longest,
    }
}

/// How long pushes are on their way from sent to arrived.
struct Way {
    /// The longest of all, and at most [`ON_ITS_WAY`].
    longest: Duration,
    /// The longest of those that were sent in each second.
    in_second: HashMap<u64, Duration>,
}

impl Way {
    fn of(lives: &[Life], streams: &Streams) -> Self {
        let mut in_second = HashMap::<u64, Duration>::new();
        for (stream, arrivals) in lives.iter().flat_map(|life| &life.seen) {
            let Some(pushes) = streams.get(stream) else {
                continue;
            };
            for arrival in arrivals {
                if let Some(push) = find(pushes, arrival.number).map(|at| &pushes[at]).filter(|push| push.accepted) {
                    let took = arrival.time(push.due).saturating_sub(push.sent);
                    let longest = in_second.entry(push.sent.as_secs()).or_default();
                    *longest = took.max(*longest);
                }
            }
        }
        let longest = in_second.values().max().copied().unwrap_or_default().min(ON_ITS_WAY);
        Self { longest, in_second }
    }

    /// Until when a push may come.
    fn until(&self, push: &Pushed) -> Duration {
        let second = push.sent.as_secs();
        let around = (second.saturating_sub(1)..=second + 1).filter_map(|second| self.in_second.get(&second)).max();
        push.answered.max(push.sent + around.copied().unwrap_or_default()) + self.longest
    }
}

fn strays(life: &Life, streams: &Streams) -> u64 {
    let seen = life.seen.iter().map(|(stream, arrivals)| {
        let pushes = streams.get(stream).filter(|_| life.streams.contains(stream));
        let stray = |arrival: &&Arrival| pushes.is_none_or(|pushes| find(pushes, arrival.number).is_none());
        arrivals.iter().filter(stray).count() as u64
    });
    seen.sum()
}

fn find(pushes: &[Pushed], number: u32) -> Option<usize> {
    pushes.binary_search_by_key(&number, |push| push.number).ok()
}

struct Judging<'a> {
    ended: Duration,
    begins: &'a [Duration],
    way: Way,
    counts: Vec<Count>,
    losses: Vec<Loss>,
}

impl Judging<'_> {
    fn phase(&mut self, push: &Pushed) -> &mut Count {
        let after = self.begins.partition_point(|begin| *begin <= push.sent);
        &mut self.counts[after.saturating_sub(1)]
    }

    fn count(&mut self, push: &Pushed) -> &mut Pushes {
        &mut self.phase(push).pushes
    }

    /// One stream at one client.
    fn stream(&mut self, client: usize, life: &Life, stream: u32, pushes: &[Pushed]) {
        let Some(first) = life.stays.first() else {
            return;
        };
        let gaps = life.gaps();
        let mut arrived: Vec<Option<(u32, usize)>> = vec![None; pushes.len()];
        let (mut highest, mut highest_here) = (None, (0, None));
        for arrival in life.seen.get(&stream).into_iter().flatten() {
            let Some(at) = find(pushes, arrival.number) else {
                continue;
            };
            let stay = life.stay_at(arrival.time(pushes[at].due));
            if stay > highest_here.0 {
                highest_here = (stay, None);
            }
            let (count, here) = (self.count(&pushes[at]), &mut highest_here.1);
            if arrived[at].is_some_and(|(_, earlier)| earlier == stay) {
                count.repeats += 1;
            } else if *here > Some(at) {
                count.inversions += 1;
            } else if highest >= Some(at) {
                count.across += 1;
            }
            (*here, highest) = ((*here).max(Some(at)), highest.max(Some(at)));
            // Latency is that of the first arrival.
            arrived[at].get_or_insert((arrival.micros, stay)).1 = stay;
        }
        let in_time = first.entered..=self.ended;
        for (push, arrived) in pushes.iter().zip(arrived) {
            if !push.accepted || !in_time.contains(&push.sent) {
                continue;
            }
            let excused = arrived.is_none() && meets(&gaps, push.sent, self.way.until(push));
            let count = self.phase(push);
            count.pushes.expected += 1;
            match arrived {
                Some((micros, _)) => {
                    count.pushes.delivered += 1;
                    count.latency.saturating_record(micros.into());
                }
                None if excused => count.pushes.excused += 1,
                None => {
                    count.pushes.lost += 1;
                    if self.losses.len() < SHOWN {
                        self.losses.push(Loss { client, push: *push, gaps: gaps.clone() });
                    }
                }
            }
        }
    }
}

/// Whether this time touches a gap; one without an end lasts.
fn meets(gaps: &[Gap], from: Duration, to: Duration) -> bool {
    let past = gaps.partition_point(|gap| gap.to.is_some_and(|end| end < from));
    gaps.get(past).is_some_and(|gap| gap.from <= to)
}

impl Count {
    fn new() -> Self {
        let latency = Latency::histogram();
        Self { pushes: Pushes::default(), latency }
    }

    fn plus(mut self, other: &Self) -> Self {
        let (all, one) = (&mut self.pushes, &other.pushes);
        all.accepted += one.accepted;
        all.refused += one.refused;
        all.expected += one.expected;
        all.delivered += one.delivered;
        all.excused += one.excused;
        all.lost += one.lost;
        all.repeats += one.repeats;
        all.inversions += one.inversions;
        all.across += one.across;
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        self
    }

    fn done(&self) -> Pushes {
        Pushes { latency: Latency::of(&self.latency), ..self.pushes.clone() }
    }
}
