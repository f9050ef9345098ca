//! A fan-out round: what gathered in a shard's inbox, written to each touched channel once.
//!
//! A quiet shard has one push in a round and writes it at once. A busy one finds many, and each member's share of them
//! leaves in one system call, which is nearly all that a delivery costs.

use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use proto::RoomId;
use tracing::Span;

use crate::bucket::Bucket;
use crate::channel::{Batch, Channel, Pushed, Touched};
use crate::message::{Push, Variant};
use crate::metrics::Metrics;

/// The most message × member pairs a round takes.
pub const MAX_PAIRS: usize = 64 * 1024;
/// Writes between two polls of the shard's sockets.
const WRITES_BETWEEN_POLLS: usize = 256;
const VARIANTS: usize = 4;

/// Pushes that share their receivers, and who those are.
#[derive(Debug)]
struct Source {
    pushes: Vec<Arc<Push>>,
    members: Vec<Rc<Channel>>,
    bytes: usize,
}

/// What one round has gathered so far.
#[derive(Debug)]
pub struct Round {
    number: u64,
    max_bytes: usize,
    rooms: AHashMap<RoomId, usize>,
    all: AHashMap<i32, usize>,
    sources: Vec<Source>,
    own: Vec<(Rc<Channel>, Vec<Arc<Push>>)>,
    pairs: usize,
    full: bool,
}

impl Round {
    /// An empty round; no receiver is to get more than about `max_bytes` in it.
    pub fn new(number: u64, max_bytes: usize) -> Self {
        Self {
            number,
            max_bytes,
            rooms: AHashMap::new(),
            all: AHashMap::new(),
            sources: Vec::new(),
            own: Vec::new(),
            pairs: 0,
            full: false,
        }
    }

    /// Whether it holds as much as a round may.
    pub fn is_full(&self) -> bool {
        self.full || self.pairs >= MAX_PAIRS
    }

    /// Adds a push for everyone in its room.
    pub fn room(&mut self, bucket: &Bucket, push: Arc<Push>) {
        let source = match self.rooms.get(push.room()) {
            Some(source) => *source,
            None => match bucket.room(push.room()) {
                Some(room) => {
                    self.sources.push(Source::new(room.members()));
                    self.rooms.insert(room.id.clone(), self.sources.len() - 1);
                    self.sources.len() - 1
                }
                None => return,
            },
        };
        self.add(source, push);
    }

    /// Adds a push for everyone who accepts the operation.
    pub fn all(&mut self, bucket: &Bucket, push: Arc<Push>, op: i32) {
        let source = *self.all.entry(op).or_insert_with(|| {
            let members = bucket.channels().into_iter().filter(|channel| channel.accepts(op)).collect();
            self.sources.push(Source::new(members));
            self.sources.len() - 1
        });
        self.add(source, push);
    }

    /// Adds a push for one channel.
    pub fn one(&mut self, channel: &Rc<Channel>, push: Arc<Push>) {
        self.pairs += 1;
        self.full |= push.frame(channel.variant).len() >= self.max_bytes;
        let own = self.own_list(channel);
        self.own[own].1.push(push);
        self.full |= self.own[own].1.len() >= 1024;
    }

    fn add(&mut self, source: usize, push: Arc<Push>) {
        let source = &mut self.sources[source];
        source.bytes += push.frame(Variant::GoimTcp).len();
        self.pairs += source.members.len();
        self.full |= source.bytes >= self.max_bytes;
        source.pushes.push(push);
    }

    fn own_list(&mut self, channel: &Rc<Channel>) -> usize {
        match channel.touched.get() {
            (number, Touched::Own(own)) if number == self.number => own,
            _ => {
                self.own.push((channel.clone(), Vec::new()));
                channel.touched.set((self.number, Touched::Own(self.own.len() - 1)));
                self.own.len() - 1
            }
        }
    }

    /// Writes it all. Sockets are polled in between, so that a large round does not hold up heartbeats.
    pub async fn write(mut self, metrics: &Metrics) {
        self.gather();
        let mut writes = 0;
        let mut total = Pushed::default();
        for (index, source) in self.sources.iter().enumerate() {
            let _traced = traced(&source.pushes);
            let mut batches: [Option<Batch>; VARIANTS] = Default::default();
            for channel in &source.members {
                if channel.touched.get() == (self.number, Touched::Shared(index)) {
                    let batch = batches[channel.variant as usize]
                        .get_or_insert_with(|| Batch::new(&source.pushes, channel.variant));
                    total.add(channel.push(batch));
                    pause(&mut writes).await;
                }
            }
            metrics.written(&source.pushes);
        }
        for (channel, pushes) in &self.own {
            let _traced = traced(pushes);
            total.add(channel.push(&Batch::new(pushes, channel.variant)));
            pause(&mut writes).await;
            metrics.written(pushes);
        }
        metrics.pushed(total);
    }

    /// Finds the channels that more than one source touches and gives each a list of its own.
    fn gather(&mut self) {
        for index in 0..self.sources.len() {
            for member in 0..self.sources[index].members.len() {
                let channel = self.sources[index].members[member].clone();
                match channel.touched.get() {
                    (number, touched) if number == self.number => {
                        let own = self.own_list(&channel);
                        if let Touched::Shared(first) = touched {
                            let pushes = self.sources[first].pushes.clone();
                            self.own[own].1.extend(pushes);
                        }
                        let pushes = self.sources[index].pushes.clone();
                        self.own[own].1.extend(pushes);
                    }
                    _ => channel.touched.set((self.number, Touched::Shared(index))),
                }
            }
        }
    }
}

impl Source {
    fn new(members: Vec<Rc<Channel>>) -> Self {
        Self { pushes: Vec::new(), members, bytes: 0 }
    }
}

impl Pushed {
    fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.dropped += other.dropped;
    }
}

/// The spans of the socket writes of those pushes that are traced.
fn traced(pushes: &[Arc<Push>]) -> Vec<Span> {
    let sampled = pushes.iter().filter(|push| !push.span.is_none());
    sampled.map(|push| push.span.in_scope(|| runtime::trace::child_span("socket write"))).collect()
}

async fn pause(writes: &mut usize) {
    *writes += 1;
    if writes.is_multiple_of(WRITES_BETWEEN_POLLS) {
        tokio::task::yield_now().await;
    }
}
