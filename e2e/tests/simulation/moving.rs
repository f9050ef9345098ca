//! A key that moves: what job keeps for keys that it looks for, its ledger and queues, and comet's repeat filter are the
//! real ones; between them a model of one partition with records for one key, which goes from comet to comet. Each seed
//! is one schedule. Whatever happens, each record is given to the key once, in order, or it is known why not: a later one
//! that was on its way already came first, or the key was given up.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use comet::repeats::{Repeats, Sender};
use job::comet::queue::{Batch, Limits, Queue, Vouch, Way};
use job::ledger::Ledger;
use job::metrics::Metrics;
use job::push::{Partition, Push};
use job::room::{Batching, Item};
use job::seek::board::{Board, Left, Next, Place, Put};
use parking_lot::Mutex;
use prost::Message as _;
use proto::Key;
use proto::envelope::PushId;
use proto::log::Record;
use proto::logic::PushMsg;
use tokio::time::Instant;

use super::world::Seeded;

const COMETS: usize = 3;
const STEPS: usize = 160;
const REST: usize = 4_000;
const KEY: &str = "k";

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    None,
    /// comet gives a key what is older than what it had.
    Unordered,
    /// job takes a record for answered when its key is looked for.
    Answered,
    /// job sends on what is new while older records wait for their key.
    Unheld,
    /// job tells as floor what it has read.
    FloorTooHigh,
}

impl Mutant {
    pub const ALL: [Self; 4] = [Self::Unordered, Self::Answered, Self::Unheld, Self::FloorTooHigh];
}

enum Frame {
    Vouch(Vec<Vouch>),
    Batch { batch: Batch, floor: u64 },
}

/// One comet and the stream to it.
struct Comet {
    repeats: Repeats,
    /// Made when job first has something for it.
    queue: Option<Queue>,
    down: VecDeque<Frame>,
    /// Answers, and whether the key was not there.
    up: VecDeque<(Frame, bool)>,
}

/// What the key got while it was on one comet.
struct Stay {
    comet: usize,
    began: u64,
    got: Vec<u64>,
}

pub struct World {
    seeded: Seeded,
    mutant: Mutant,
    now: Instant,
    /// Where logic sent each record.
    log: Vec<usize>,
    read: u64,
    partition: Arc<Partition>,
    board: Board,
    comets: Vec<Comet>,
    stays: Vec<Stay>,
    /// Records that wait until it is known where the key is.
    waiting: BTreeSet<u64>,
    overtaken: HashSet<u64>,
    given_up: HashSet<u64>,
    /// Records that reached their key after it was looked for.
    pub found: u64,
    fault: Option<String>,
}

impl World {
    pub fn new(seed: u64, mutant: Mutant) -> Self {
        let partition = Arc::new(Partition {
            number: 0,
            generation: 1,
            group: "g".into(),
            epoch: 7,
            in_topic: 1,
            takeover: false,
            ledger: Mutex::new(Ledger::new(0)),
            progress: Arc::default(),
            fenced: false.into(),
        });
        let mut board = Board::default();
        board.assign(&partition);
        let comet = |_| Comet { repeats: Repeats::default(), queue: None, down: VecDeque::new(), up: VecDeque::new() };
        Self {
            seeded: Seeded::new(seed),
            mutant,
            now: Instant::now(),
            log: Vec::new(),
            read: 0,
            partition,
            board,
            comets: (0..COMETS).map(comet).collect(),
            stays: vec![Stay { comet: 0, began: 0, got: Vec::new() }],
            waiting: BTreeSet::new(),
            overtaken: HashSet::new(),
            given_up: HashSet::new(),
            found: 0,
            fault: None,
        }
    }

    /// Runs the schedule and judges it. Returns how many records found their key.
    pub fn run(mut self) -> Result<u64, String> {
        for _ in 0..STEPS {
            self.step();
        }
        for _ in 0..REST {
            self.now += Duration::from_millis(50);
            self.read();
            self.ask();
            for comet in 0..COMETS {
                self.send(comet);
                while self.take(comet) {}
                while self.hear(comet) {}
            }
            if self.read == self.log.len() as u64 && self.partition.ledger.lock().is_settled() && self.board.is_empty()
            {
                return self.judge().map(|()| self.found);
            }
        }
        Err(format!("no rest: {} of {}", self.partition.ledger.lock().committed(), self.log.len()))
    }

    fn step(&mut self) {
        let comet = self.seeded.below(COMETS);
        match self.seeded.below(100) {
            0..24 => self.log.push(self.stays.last().expect("it is somewhere").comet),
            24..44 => self.read(),
            44..58 => self.send(comet),
            58..74 => drop(self.take(comet)),
            74..88 => drop(self.hear(comet)),
            88..92 => self.ask(),
            92..95 => self.now += Duration::from_millis(300),
            95..98 => {
                let began = self.log.len() as u64;
                self.stays.push(Stay { comet, began, got: Vec::new() });
            }
            _ => self.hang_up(comet),
        }
    }

    /// Reads the next record.
    fn read(&mut self) {
        let Some(server) = self.log.get(self.read as usize).copied() else {
            return;
        };
        let offset = self.read;
        self.read += 1;
        let message = PushMsg { keys: vec![KEY.into()], server: server.to_string(), ..Default::default() };
        let value = message.encode_to_vec().into();
        let record = Record { partition: 0, offset, key: "".into(), value, headers: vec![], timestamp_ms: 0 };
        let push = Push::decode(&record, 7, self.now).unwrap();
        self.partition.ledger.lock().open(offset, 1);
        if self.board.seeks(&self.partition, KEY) && self.mutant != Mutant::Unheld {
            self.put(push, None);
        } else {
            self.give(push, server);
        }
    }

    fn give(&mut self, push: Push, comet: usize) {
        self.waiting.remove(&push.id.offset);
        if let Some(older) = self.waiting.range(..push.id.offset).next() {
            let text = format!("record {} was sent while {older} waited", push.id.offset);
            self.fault.get_or_insert(text);
        }
        let partition = &self.partition;
        let queue = self.comets[comet].queue.get_or_insert_with(|| {
            let batching = Batching { count: 3, bytes: 65_536, window: Duration::from_millis(20) };
            let limits = Limits { batching, backlog: 1 << 30, stall: Duration::from_secs(3600) };
            let queue = Queue::new(limits, METRICS.clone());
            let next = partition.ledger.lock().next();
            queue.assign(partition, next);
            queue.claimed(&queue.unclaimed());
            queue
        });
        assert!(queue.push(partition, Item { push: Arc::new(push), speed: 0 }, self.now));
    }

    fn put(&mut self, push: Push, left: Option<Left>) {
        let offset = push.id.offset;
        match self.board.put(&self.partition, KEY, push, left, self.now) {
            Put::Kept => drop(self.waiting.insert(offset)),
            Put::Twice => self.partition.answer(std::iter::once(offset)),
            Put::NotOurs => self.fault = Some("the partition was never taken".to_owned()),
            Put::Refused(..) => {
                self.given_up.insert(offset);
                self.partition.answer(std::iter::once(offset));
            }
        }
    }

    fn send(&mut self, comet: usize) {
        let Comet { queue: Some(queue), down, .. } = &mut self.comets[comet] else {
            return;
        };
        let floor = {
            let ledger = self.partition.ledger.lock();
            if self.mutant == Mutant::FloorTooHigh { ledger.next() } else { ledger.committed() }
        };
        queue.tell(self.now);
        let vouches = queue.vouches();
        if !vouches.is_empty() {
            down.push_back(Frame::Vouch(vouches));
        }
        while let Some(batch) = queue.next(self.now, Way::Stream) {
            down.push_back(Frame::Batch { batch, floor });
        }
    }

    /// The comet takes the next frame.
    fn take(&mut self, comet: usize) -> bool {
        let Some(frame) = self.comets[comet].down.pop_front() else {
            return false;
        };
        let is_missing = self.obey(comet, &frame);
        self.comets[comet].up.push_back((frame, is_missing));
        true
    }

    /// Returns whether the key is not there.
    fn obey(&mut self, comet: usize, frame: &Frame) -> bool {
        let repeats = &mut self.comets[comet].repeats;
        let (batch, floor) = match frame {
            Frame::Vouch(vouches) => {
                vouches.iter().for_each(|vouch| repeats.settle(&"g".into(), 7, 0, vouch.floor));
                return false;
            }
            Frame::Batch { batch, floor } => (batch, *floor),
        };
        let (sender, key) = (Sender { group: "g".into(), floor: Some(floor) }, Key::from(KEY));
        let last = self.stays.len() - 1;
        let is_here = self.stays[last].comet == comet;
        let mut is_missing = false;
        for push in batch.items.iter().map(|item| &item.push) {
            let offset = push.id.offset;
            let id = PushId { epoch: 7, partition: 0, offset };
            let without = repeats.deliver(&sender, id, std::slice::from_ref(&key), |_| {
                if is_here {
                    self.stays[last].got.push(offset);
                    self.found += u64::from(push.late.is_some());
                }
                is_here
            });
            is_missing |= !without.missing.is_empty();
            if !without.overtaken.is_empty() {
                if self.mutant == Mutant::Unordered && is_here {
                    self.stays[last].got.push(offset);
                }
                let mut all = self.stays.iter().filter(|stay| stay.comet == comet).flat_map(|stay| &stay.got);
                if !all.any(|got| *got > offset) {
                    self.fault.get_or_insert(format!("record {offset} was overtaken by none"));
                }
                self.overtaken.insert(offset);
            }
        }
        is_missing
    }

    /// job takes the next answer.
    fn hear(&mut self, comet: usize) -> bool {
        let Some((frame, is_missing)) = self.comets[comet].up.pop_front() else {
            return false;
        };
        match frame {
            Frame::Vouch(vouches) => {
                let queue = self.comets[comet].queue.as_ref().expect("it was sent something");
                vouches.iter().for_each(|vouch| queue.told(vouch, self.now));
            }
            Frame::Batch { batch, .. } => {
                for push in batch.items.iter().map(|item| &item.push).filter(|_| is_missing) {
                    let offset = push.id.offset;
                    let before = {
                        let mut ledger = self.partition.ledger.lock();
                        if self.mutant != Mutant::Answered {
                            assert!(ledger.more(offset, 1), "nobody lets go of anything here");
                        }
                        ledger.next()
                    };
                    let left = Left { server: comet.to_string().into(), before };
                    self.put(push.narrowed(vec![KEY.to_owned()]), Some(left));
                }
                self.comets[comet].queue.as_ref().expect("it was sent something").answered(&batch, self.now);
            }
        }
        true
    }

    /// job asks where the keys are of which it is time.
    fn ask(&mut self) {
        let Self { board, comets, now, .. } = self;
        let due = board.due(*now, |server, partition| {
            comets[server.as_str().parse::<usize>().unwrap()].queue.as_ref()?.oldest_key(partition)
        });
        for (number, key) in due {
            let place = self.stays.last().expect("it is somewhere").comet;
            match self.board.located(number, &key, Place::At(place.to_string().into()), self.now) {
                Next::Send(sought, _) => {
                    for push in sought.pushes.into_values() {
                        let late = Some(sought.late);
                        self.give(Push { late, server: place.to_string().into(), ..push }, place);
                    }
                }
                Next::GiveUp(..) | Next::Wait => self.fault = Some("logic knows where the key is".to_owned()),
            }
        }
    }

    /// The stream breaks: the comet may have taken what is on its way, no answer comes.
    fn hang_up(&mut self, comet: usize) {
        let taken = self.seeded.below(4);
        for _ in 0..taken {
            self.take(comet);
        }
        let Comet { queue, down, up, .. } = &mut self.comets[comet];
        down.clear();
        up.clear();
        if let Some(queue) = queue {
            queue.all_away(self.now);
            queue.unclaim();
            queue.claimed(&queue.unclaimed());
            queue.retry();
        }
    }

    fn judge(&self) -> Result<(), String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let mut got = HashSet::new();
        for Stay { comet, got: here, .. } in &self.stays {
            if !here.is_sorted() {
                return Err(format!("out of order on comet {comet}: {here:?}"));
            }
            if let Some(twice) = here.iter().find(|offset| !got.insert(**offset)) {
                return Err(format!("record {twice} was given twice"));
            }
        }
        let is_told = |offset: &u64| [&got, &self.overtaken, &self.given_up].iter().any(|of| of.contains(offset));
        if let Some(lost) = (0..self.log.len() as u64).find(|offset| !is_told(offset)) {
            return Err(format!("record {lost} was given to nobody and nobody knows why"));
        }
        let last = self.stays.last().expect("it is somewhere");
        match (last.began..self.log.len() as u64).find(|offset| !last.got.contains(offset)) {
            Some(lost) => Err(format!("record {lost} was for a key that stayed, and was not given to it")),
            None => Ok(()),
        }
    }
}
