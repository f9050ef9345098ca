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
use proto::delivery::Interest;
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

/// What comes back.
pub enum Answer {
    /// In which rooms somebody is there.
    Rooms(Interest),
    /// A frame was taken, and whether it was fenced.
    Taken(bool),
}

/// A stream as it is between the two.
pub struct Stream {
    pub generation: i32,
    /// Calls: a stream with one batch out at a time, on which nothing is vouched for.
    pub way: Way,
    /// On its way to the comet.
    pub down: VecDeque<Frame>,
    /// Answers on their way.
    pub up: VecDeque<Answer>,
    /// The comet's end of it as far as rooms go, once it has seen the stream.
    pub rooms: Option<comet::interest::Stream>,
    sent: VecDeque<Frame>,
}

pub struct Job {
    pub generation: i32,
    pub streams: Vec<Option<Stream>>,
    partition: Arc<Partition>,
    /// What comets are owed; `None` = discovery has not named it yet.
    queues: Vec<Option<Queue>>,
    /// What is kept for those meanwhile, because records name them.
    phantoms: Vec<Option<Queue>>,
    /// For these nothing is kept any more.
    forgotten: [bool; COMETS],
    /// Who was known when records for everybody were last about to be handed out.
    view: [bool; COMETS],
    next: u64,
    opened: usize,
    mutant: Mutant,
}

impl Job {
    /// Owns the partition from this offset on, and knows these comets.
    pub fn new(generation: i32, start: u64, known: [bool; COMETS], mutant: Mutant) -> Self {
        let partition = Arc::new(Partition {
            number: 0,
            generation,
            group: "g".into(),
            epoch: EPOCH,
            in_topic: 1,
            takeover: false,
            ledger: Mutex::new(Ledger::new(start)),
            progress: Arc::default(),
            fenced: false.into(),
        });
        Self {
            generation,
            streams: (0..COMETS).map(|_| None).collect(),
            queues: known.map(|is_known| is_known.then(|| queue(&partition, start))).into(),
            phantoms: (0..COMETS).map(|_| None).collect(),
            forgotten: [false; COMETS],
            view: known,
            next: start,
            opened: 0,
            partition,
            mutant,
        }
    }

    /// Reads the next record and owes it to the comets it is for: when it is for everybody, to those that were known
    /// when it was last looked.
    pub fn read(&mut self, log: &[Target], looks: bool, now: Instant) {
        let Some(target) = log.get(self.next as usize).filter(|_| !self.partition.is_fenced()) else {
            return;
        };
        if looks {
            self.view = std::array::from_fn(|comet| self.queues[comet].is_some());
        }
        let offset = self.next;
        self.next += 1;
        let (message, comets) = match target {
            Target::Room(room) => {
                let message = PushMsg { r#type: Type::Room.into(), room: room.to_string(), ..Default::default() };
                (message, (0..COMETS).filter(|comet| self.view[*comet]).collect())
            }
            Target::Key(comet) => (PushMsg { keys: vec![comet.to_string()], ..Default::default() }, vec![*comet]),
        };
        let value = message.encode_to_vec().into();
        let record = Record { partition: 0, offset, key: "".into(), value, headers: vec![], timestamp_ms: 0 };
        let push = Arc::new(Push::decode(&record, EPOCH, now).unwrap());
        self.partition.ledger.lock().open(offset, comets.len() as u32);
        for comet in comets {
            let item = Item { push: push.clone(), speed: 0 };
            match &self.queues[comet] {
                Some(queue) => assert!(queue.push(&self.partition, item, now)),
                None if self.forgotten[comet] => self.partition.answer([offset].into_iter()),
                None => {
                    let next = self.partition.ledger.lock().next();
                    let phantom = self.phantoms[comet].get_or_insert_with(|| queue(&self.partition, next));
                    assert!(phantom.push(&self.partition, item, now));
                }
            }
        }
        if matches!(target, Target::Room(_)) && self.mutant != Mutant::GivenUnsaid {
            let is_new = |(comet, _): &(usize, _)| !self.view[*comet];
            let new = self.queues.iter().enumerate().filter(is_new).filter_map(|(_, queue)| queue.as_ref());
            new.for_each(|queue| queue.miss(&self.partition, offset));
        }
    }

    /// Discovery names a comet. Returns whether that was news.
    pub fn join(&mut self, comet: usize, now: Instant) -> bool {
        if self.queues[comet].is_some() {
            return false;
        }
        let from = match self.mutant {
            Mutant::LateUnsaid => self.partition.ledger.lock().committed(),
            _ => self.partition.ledger.lock().next(),
        };
        let queue = self.queues[comet].insert(queue(&self.partition, from));
        if let Some(phantom) = self.phantoms[comet].take() {
            phantom.hand_over(queue, now);
        }
        true
    }

    /// Whether it keeps nothing for this comet until it answers.
    pub fn has_let_go(&self, comet: usize) -> bool {
        self.queues[comet].as_ref().is_some_and(|queue| queue.size().2 == State::LetGo)
    }

    /// Opens a stream, or begins with calls, unless that was done or the comet is not known.
    pub fn open(&mut self, comet: usize, way: Way, now: Instant) {
        let Some(queue) = self.queues[comet].as_ref().filter(|_| self.streams[comet].is_none()) else {
            return;
        };
        self.opened += 1;
        let is_wrong = self.mutant == Mutant::CallsBetween && self.opened.is_multiple_of(2);
        let way = if is_wrong { Way::Calls } else { way };
        let (down, up, sent) = Default::default();
        self.streams[comet] = Some(Stream { generation: self.generation, way, down, up, rooms: None, sent });
        queue.goes_by(way);
        queue.unclaim();
        queue.all_away(now);
        queue.retry();
    }

    /// Loses the stream.
    pub fn close(&mut self, comet: usize, now: Instant) -> Option<Stream> {
        let stream = self.streams[comet].take()?;
        let queue = self.queues[comet].as_ref().expect("who has a stream is known");
        if self.mutant == Mutant::AnsweredByEnd {
            for frame in &stream.sent {
                if let Frame::Batch { batch, .. } = frame {
                    queue.answered(batch, now);
                }
            }
        }
        queue.all_away(now);
        Some(stream)
    }

    /// Sends what the comet's task would send when it wakes.
    pub fn send(&mut self, comet: usize, now: Instant) {
        let (Some(queue), Some(stream)) = (&self.queues[comet], &mut self.streams[comet]) else {
            return;
        };
        let (way, mutant) = (stream.way, self.mutant);
        let mut put = |frame: Frame| {
            stream.down.push_back(frame.clone());
            stream.sent.push_back(frame);
        };
        let unclaimed = queue.unclaimed();
        if !unclaimed.is_empty() {
            queue.claimed(&unclaimed);
            put(Frame::Claim);
        }
        let mut vouches = if way == Way::Stream { queue.vouches() } else { vec![] };
        if mutant == Mutant::HideLetGo {
            vouches.iter_mut().for_each(|vouch| vouch.from = 0);
        }
        if !vouches.is_empty() {
            put(Frame::Vouch(vouches));
        }
        let mut batches: Vec<Batch> = std::iter::from_fn(|| queue.next(now, way)).collect();
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
        let (Some(queue), Some(stream)) = (&self.queues[comet], &mut self.streams[comet]) else {
            return;
        };
        while let Some(answer) = stream.up.pop_front() {
            let fenced = match answer {
                Answer::Taken(fenced) => fenced,
                Answer::Rooms(rooms) => {
                    queue.interested(rooms, now);
                    continue;
                }
            };
            let frame = stream.sent.pop_front().unwrap();
            match frame {
                _ if fenced => self.partition.fence(),
                Frame::Claim => {}
                Frame::Vouch(vouches) => vouches.iter().for_each(|vouch| queue.told(vouch, now)),
                Frame::Batch { batch, .. } => {
                    queue.answered(&batch, now);
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
        let is_let_go = |queue: &Queue| queue.check(now).0 == State::LetGo;
        for (phantom, is_forgotten) in self.phantoms.iter_mut().zip(&mut self.forgotten) {
            if let Some(phantom) = phantom.take_if(|phantom| is_let_go(phantom)) {
                phantom.close("unknown_server");
                *is_forgotten = true;
            }
        }
        let is_stalled = |index: &usize| self.queues[*index].as_ref().is_some_and(is_let_go);
        let stalled: Vec<usize> = (0..COMETS).filter(is_stalled).collect();
        stalled.into_iter().map(|index| (index, self.close(index, now))).collect()
    }

    /// Looks whether comets are to be told something.
    pub fn tell(&self, now: Instant) {
        self.queues.iter().flatten().for_each(|queue| queue.tell(now));
    }

    /// What may be committed.
    pub fn to_commit(&self) -> u64 {
        if self.partition.is_fenced() {
            return 0;
        }
        let floor = self.partition.ledger.lock().committed();
        let known = self.queues.iter().flatten().filter_map(|queue| queue.knows(0)).min();
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
            && self.queues.iter().chain(&self.phantoms).flatten().all(|queue| queue.size().1 == 0)
    }
}

/// What a comet is owed of the partition from an offset on.
fn queue(partition: &Arc<Partition>, from: u64) -> Queue {
    let batching = Batching { count: 3, bytes: 65_536, window: Duration::from_millis(20) };
    let queue = Queue::new(Limits { batching, backlog: 1 << 30, stall: STALL }, METRICS.clone());
    queue.assign(partition, from);
    queue
}
