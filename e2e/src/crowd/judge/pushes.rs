//! Deliveries: each push beside each client that it was addressed to.

use std::collections::HashMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::elsewhere::Elsewhere;
use crate::bench::push::Pushed;
use crate::checker::Latency;
use crate::crowd::{Arrival, Gap, Life, Record};

/// How many losses are kept to be shown; all are counted.
const SHOWN: usize = 20;

/// What became of the pushes that were sent during one phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pushes {
    /// Pushes that were answered with a yes.
    pub accepted: u64,
    /// Pushes that were not.
    pub refused: u64,
    /// Accepted pushes × receivers: what was delivered, excused, told of and lost together.
    pub expected: u64,
    /// Those that arrived.
    pub delivered: u64,
    /// Those that did not, and met a gap of their receiver.
    pub excused: u64,
    /// Those that did not, and met none, but their receiver was told of them on the connection that they should have come
    /// to.
    pub told: u64,
    /// Those that did not, and nothing explains it.
    pub lost: u64,
    /// Arrivals beyond the first in one visit.
    pub repeats: u64,
    /// Arrivals after a later number of the same stream in one visit.
    pub inversions: u64,
    /// Arrivals of what an earlier visit of the client saw, or saw something later than.
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
    /// Which server the client was at when it was sent, or before.
    pub server: usize,
    /// When the client was out; none of these met the push.
    pub gaps: Vec<Gap>,
}

/// A push that came in one visit again, or after a later one of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twist {
    /// To whom.
    pub client: usize,
    /// Which.
    pub push: Pushed,
    /// Where.
    pub server: usize,
    /// When it came for the first time, if this is not that.
    pub first: Option<Duration>,
    /// When it came.
    pub at: Duration,
}

/// Everything about pushes.
pub(super) struct Deliveries {
    pub phases: Vec<Pushes>,
    pub total: Pushes,
    /// The first few.
    pub losses: Vec<Loss>,
    /// The same of repeats and inversions.
    pub twists: Vec<Twist>,
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
pub(super) type Streams = HashMap<u32, Vec<Pushed>>;

/// Judges every push; `begins` holds where phases begin, the first at zero.
pub(super) fn judge(record: &Record, begins: &[Duration], longest: Duration) -> Deliveries {
    let mut streams = Streams::new();
    for push in &record.pushed {
        streams.entry(push.stream).or_default().push(*push);
    }
    streams.values_mut().for_each(|pushes| pushes.sort_unstable_by_key(|push| push.number));
    let mut judging = Judging {
        ended: record.ended,
        begins,
        elsewhere: Elsewhere::of(record, &streams, longest),
        counts: vec![Count::new(); begins.len()],
        losses: Vec::new(),
        twists: Vec::new(),
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
        twists: judging.twists,
        strays: record.lives.iter().map(|life| strays(life, &streams)).sum(),
        on_its_way: judging.elsewhere.slowest(),
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

pub(super) fn find(pushes: &[Pushed], number: u32) -> Option<usize> {
    pushes.binary_search_by_key(&number, |push| push.number).ok()
}

struct Judging<'a> {
    ended: Duration,
    begins: &'a [Duration],
    elsewhere: Elsewhere,
    counts: Vec<Count>,
    losses: Vec<Loss>,
    twists: Vec<Twist>,
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
        // What is highest, at all and in each visit.
        let (mut highest, mut on_each) = (None, vec![None; life.stays.len()]);
        for arrival in life.seen.get(&stream).into_iter().flatten() {
            let Some(at) = find(pushes, arrival.number) else {
                continue;
            };
            let (push, time) = (pushes[at], arrival.time(pushes[at].due));
            let stay = life.stay_at(time);
            let visit = life.visit(stay);
            let (count, here) = (self.count(&push), &mut on_each[visit]);
            let first = arrived[at].filter(|(_, earlier)| *earlier == visit);
            if first.is_some() || *here > Some(at) {
                *(if first.is_some() { &mut count.repeats } else { &mut count.inversions }) += 1;
                if self.twists.len() < SHOWN {
                    let first = first.map(|(micros, _)| push.due + Duration::from_micros(micros.into()));
                    self.twists.push(Twist { client, push, server: life.stays[stay].server, first, at: time });
                }
            } else if highest >= Some(at) {
                count.across += 1;
            }
            (*here, highest) = ((*here).max(Some(at)), highest.max(Some(at)));
            // Latency is that of the first arrival.
            arrived[at].get_or_insert((arrival.micros, visit)).1 = visit;
        }
        let gaps_told = told(life, stream, pushes);
        let in_time = first.entered..=self.ended;
        for (at, (push, arrived)) in pushes.iter().zip(arrived).enumerate() {
            if !push.accepted || !in_time.contains(&push.sent) {
                continue;
            }
            let excused = arrived.is_none() && self.excused(push, &gaps, |visit| on_each[visit] > Some(at));
            let count = self.phase(push);
            count.pushes.expected += 1;
            match arrived {
                Some((micros, _)) => {
                    count.pushes.delivered += 1;
                    count.latency.saturating_record(micros.into());
                }
                None if excused => count.pushes.excused += 1,
                None if gaps_told.iter().any(|(told, before)| push.sent <= *told && Some(at) > *before) => {
                    count.pushes.told += 1;
                }
                None => {
                    count.pushes.lost += 1;
                    if self.losses.len() < SHOWN {
                        let server = life.stays[life.stay_at(push.sent)].server;
                        self.losses.push(Loss { client, push: *push, server, gaps: gaps.clone() });
                    }
                }
            }
        }
    }

    /// Whether its client was out while it could have come: gap n follows visit n, and is none for what a later push of
    /// the same stream has overtaken in that visit.
    fn excused(&self, push: &Pushed, gaps: &[Gap], overtaken: impl Fn(usize) -> bool) -> bool {
        gaps.iter().enumerate().any(|(visit, gap)| {
            let in_time = gap.to.is_none_or(|to| to >= push.sent) && gap.from <= self.elsewhere.until(push, gap.server);
            in_time && !overtaken(visit)
        })
    }
}

/// When a client was told of gaps, and the last push of this stream that had come by then on the same connection.
fn told(life: &Life, stream: u32, pushes: &[Pushed]) -> Vec<(Duration, Option<usize>)> {
    let came = life.seen.get(&stream).into_iter().flatten();
    let came: Vec<_> = match life.told.is_empty() {
        true => Vec::new(),
        false => came.filter_map(|one| find(pushes, one.number).map(|at| (at, one.time(pushes[at].due)))).collect(),
    };
    let before = |told: Duration| {
        let entered = life.stays[life.stay_at(told)].entered;
        came.iter().filter(|(_, time)| (entered..=told).contains(time)).map(|(at, _)| *at).max()
    };
    life.told.iter().map(|told| (told.at, before(told.at))).collect()
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
        all.told += one.told;
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
