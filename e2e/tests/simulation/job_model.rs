//! A job that owns the partition: the real ledger and queues, and a model of the dispatcher and of the task of each
//! comet.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use job::comet::queue::{Batch, Limits, Queue, State, Vouch, Way};
use job::ledger::Ledger;
use job::metrics::Metrics;
use job::push::{Partition, Push};
use job::room::{Batching, Item};
use parking_lot::Mutex;
use prost::Message as _;
use proto::log::Record;
use proto::logic::PushMsg;
use proto::logic::push_msg::Type;
use tokio::time::Instant;

use super::world::{COMETS, Mutant, Target};

pub const EPOCH: u32 = 7;
pub const STALL: Duration = Duration::from_secs(10);

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// What one frame says.
#[derive(Clone)]
pub enum Frame {
    Claim,
    Vouch(Vec<Vouch>),
    Batch { batch: Batch, floor: u64 },
}

/// A stream as it is between the two.
pub struct Stream {
    pub generation: i32,
    /// On its way to the comet.
    pub down: VecDeque<Frame>,
    /// Answers on their way: whether the frame was fenced.
    pub up: VecDeque<bool>,
    sent: VecDeque<Frame>,
}

pub struct Job {
    pub generation: i32,
    pub streams: Vec<Option<Stream>>,
    partition: Arc<Partition>,
    queues: Vec<Queue>,
    next: u64,
    mutant: Mutant,
}

impl Job {
    /// Owns the partition from this offset on.
    pub fn new(generation: i32, start: u64, mutant: Mutant) -> Self {
        let partition = Arc::new(Partition {
            number: 0,
            generation,
            group: "g".into(),
            epoch: EPOCH,
            in_topic: 1,
            ledger: Mutex::new(Ledger::new(start)),
            progress: Arc::default(),
            fenced: false.into(),
        });
        let batching = Batching { count: 3, bytes: 65_536, window: Duration::from_millis(20) };
        let limits = Limits { batching, backlog: 1 << 30, stall: STALL };
        let queues: Vec<Queue> = (0..COMETS).map(|_| Queue::new(limits, METRICS.clone())).collect();
        queues.iter().for_each(|queue| queue.assign(&partition, start));
        Self { generation, streams: (0..COMETS).map(|_| None).collect(), partition, queues, next: start, mutant }
    }

    /// Reads the next record and owes it to the comets it is for.
    pub fn read(&mut self, log: &[Target], now: Instant) {
        let Some(target) = log.get(self.next as usize).filter(|_| !self.partition.is_fenced()) else {
            return;
        };
        let offset = self.next;
        self.next += 1;
        let (message, comets) = match target {
            Target::Room(room) => {
                (PushMsg { r#type: Type::Room.into(), room: room.to_string(), ..Default::default() }, 0..COMETS)
            }
            Target::Key(comet) => (PushMsg { keys: vec![comet.to_string()], ..Default::default() }, *comet..comet + 1),
        };
        let value = message.encode_to_vec().into();
        let record = Record { partition: 0, offset, key: "".into(), value, headers: vec![], timestamp_ms: 0 };
        let push = Arc::new(Push::decode(&record, EPOCH, now).unwrap());
        self.partition.ledger.lock().open(offset, comets.len() as u32);
        for comet in comets {
            assert!(self.queues[comet].push(&self.partition, Item { push: push.clone(), speed: 0 }, now));
        }
    }

    /// Opens a stream unless there is one.
    pub fn open(&mut self, comet: usize) {
        if self.streams[comet].is_some() {
            return;
        }
        let (down, up, sent) = Default::default();
        self.streams[comet] = Some(Stream { generation: self.generation, down, up, sent });
        let queue = &self.queues[comet];
        queue.goes_by(Way::Stream);
        queue.unclaim();
        queue.all_away();
        queue.retry();
    }

    /// Loses the stream.
    pub fn close(&mut self, comet: usize, now: Instant) -> Option<Stream> {
        let stream = self.streams[comet].take();
        if self.mutant == Mutant::AnsweredByEnd {
            for frame in stream.iter().flat_map(|stream| &stream.sent) {
                if let Frame::Batch { batch, .. } = frame {
                    self.queues[comet].answered(batch, now);
                }
            }
        }
        self.queues[comet].all_away();
        stream
    }

    /// Sends what the comet's task would send when it wakes.
    pub fn send(&mut self, comet: usize, now: Instant) {
        let (queue, mutant) = (&self.queues[comet], self.mutant);
        let Some(stream) = &mut self.streams[comet] else {
            return;
        };
        let mut put = |frame: Frame| {
            stream.down.push_back(frame.clone());
            stream.sent.push_back(frame);
        };
        let unclaimed = queue.unclaimed();
        if !unclaimed.is_empty() {
            queue.claimed(&unclaimed);
            put(Frame::Claim);
        }
        let mut vouches = queue.vouches();
        if mutant == Mutant::HideLetGo {
            vouches.iter_mut().for_each(|vouch| vouch.from = 0);
        }
        if !vouches.is_empty() {
            put(Frame::Vouch(vouches));
        }
        let mut batches: Vec<Batch> = std::iter::from_fn(|| queue.next(now, Way::Stream)).collect();
        if mutant == Mutant::NewFirst {
            batches.reverse();
        }
        for batch in batches {
            let ledger = self.partition.ledger.lock();
            let floor = if mutant == Mutant::FloorTooHigh { ledger.next() } else { ledger.committed() };
            drop(ledger);
            put(Frame::Batch { batch, floor });
        }
    }

    /// Takes the answers that have come.
    pub fn hear(&mut self, comet: usize, now: Instant) {
        let Some(stream) = &mut self.streams[comet] else {
            return;
        };
        while let Some(fenced) = stream.up.pop_front() {
            let frame = stream.sent.pop_front().unwrap();
            match frame {
                _ if fenced => self.partition.fence(),
                Frame::Claim => {}
                Frame::Vouch(vouches) => vouches.iter().for_each(|vouch| self.queues[comet].told(vouch)),
                Frame::Batch { batch, .. } => {
                    self.queues[comet].answered(&batch, now);
                    if self.mutant == Mutant::ForgetHole {
                        let last = batch.items.last().unwrap().push.id.offset;
                        let before = self.partition.ledger.lock().committed()..last;
                        self.partition.answer(before.flat_map(|offset| [offset; COMETS]));
                    }
                }
            }
        }
    }

    /// Lets go of comets that have not answered for too long; returns them with what is on its way to them.
    pub fn let_go(&mut self, now: Instant) -> Vec<(usize, Option<Stream>)> {
        let is_stalled = |index: &usize| self.queues[*index].check(now).0 == State::LetGo;
        let stalled: Vec<usize> = (0..COMETS).filter(is_stalled).collect();
        stalled.into_iter().map(|index| (index, self.close(index, now))).collect()
    }

    /// Looks whether comets are to be told something.
    pub fn tell(&self, now: Instant) {
        self.queues.iter().for_each(|queue| queue.tell(now));
    }

    /// What may be committed.
    pub fn to_commit(&self) -> u64 {
        if self.partition.is_fenced() {
            return 0;
        }
        let floor = self.partition.ledger.lock().committed();
        let known = self.queues.iter().filter_map(|queue| queue.knows(0)).min();
        match self.mutant {
            Mutant::CommitEarly => self.next,
            Mutant::CommitUntold => floor,
            _ => floor.min(known.unwrap_or(floor)),
        }
    }

    /// Whether nothing is on its way to a comet or back.
    pub fn is_idle(&self) -> bool {
        let is_empty = |stream: &Stream| stream.sent.is_empty();
        self.streams.iter().all(|stream| stream.as_ref().is_none_or(is_empty))
            && self.queues.iter().all(|queue| queue.size().1 == 0)
    }
}
