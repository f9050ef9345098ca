//! The world: a log with one partition, its owner and earlier owners who do not know yet that they are none, comets,
//! and a seed that decides what happens next.

use std::time::Duration;

use job::comet::queue::Way;
use tokio::time::Instant;

use super::comet_model::Comet;
use super::job_model::{Job, STALL};

/// Comets in a world.
pub const COMETS: usize = 2;
/// Rooms in a world, from 1 on.
pub const ROOMS: usize = 2;
const STEPS: usize = 140;
/// Steps that everything has to come to rest.
const REST: usize = 2_000;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    None,
    /// job commits what it has read.
    CommitEarly,
    /// job commits what a comet has not been told of.
    CommitUntold,
    /// job takes an answer for one of everything before.
    ForgetHole,
    /// job tells as floor what it has read.
    FloorTooHigh,
    /// job sends what is new before what was not answered.
    NewFirst,
    /// job vouches for what it dropped.
    HideLetGo,
    /// comet answers before the record is enqueued.
    AnswerEarly,
    /// comet takes what is below the highest offset for a repeat.
    Watermark,
    /// comet takes nothing for a repeat.
    NoFilter,
    /// comet's filter begins anew with each owner.
    FilterPerOwner,
    /// comet does not tell of what it missed.
    SilentHole,
    /// job takes the end of a stream for an answer to what was out on it.
    AnsweredByEnd,
    /// job vouches for what it read before it knew the comet.
    LateUnsaid,
    /// job vouches for what it handed out by a list that a comet was not on yet.
    GivenUnsaid,
    /// job makes calls for a while to a comet that has streams.
    CallsBetween,
    /// comet lets clients in before anybody vouched for anything.
    OpenGate,
    /// comet answers what it has heard before it says which rooms began.
    RoomsLate,
    /// comet says on a new stream only which rooms change from then on.
    RoomsUntold,
    /// comet gives those who enter a room what is older than the room.
    RoomsSinceEver,
}

impl Mutant {
    pub const ALL: [Self; 19] = [
        Self::CommitEarly,
        Self::CommitUntold,
        Self::ForgetHole,
        Self::FloorTooHigh,
        Self::NewFirst,
        Self::HideLetGo,
        Self::AnswerEarly,
        Self::Watermark,
        Self::NoFilter,
        Self::FilterPerOwner,
        Self::SilentHole,
        Self::AnsweredByEnd,
        Self::LateUnsaid,
        Self::GivenUnsaid,
        Self::CallsBetween,
        Self::OpenGate,
        Self::RoomsLate,
        Self::RoomsUntold,
        Self::RoomsSinceEver,
    ];
}

/// What a record is for: what keeps its order among itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A room that clients enter and leave.
    Room(u8),
    /// A key on this comet.
    Key(usize),
}

/// Numbers that look random (splitmix64).
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

pub struct World {
    seeded: Seeded,
    mutant: Mutant,
    now: Instant,
    log: Vec<Target>,
    committed: u64,
    owner: Job,
    /// Earlier owners who go on until they are fenced or forgotten.
    zombies: Vec<Job>,
    comets: Vec<Comet>,
}

impl World {
    pub fn new(seed: u64, mutant: Mutant) -> Self {
        let now = Instant::now();
        Self {
            seeded: Seeded(seed),
            mutant,
            now,
            log: Vec::new(),
            committed: 0,
            owner: Job::new(1, 0, [true; COMETS], mutant),
            zombies: Vec::new(),
            comets: (0..COMETS).map(|index| Comet::new(index, mutant)).collect(),
        }
    }

    /// Runs the schedule and judges it.
    pub fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step();
        }
        self.rest()?;
        for comet in &self.comets {
            comet.judge(&self.log)?;
        }
        Ok(())
    }

    fn step(&mut self) {
        let comet = self.seeded.below(COMETS);
        if self.seeded.below(8) == 0 {
            self.comets[comet].let_in();
        }
        if self.seeded.below(6) == 0 {
            let (room, leaves) = (1 + self.seeded.below(ROOMS), self.seeded.below(4) == 0);
            self.comets[comet].enter_or_leave(room as u8, leaves);
        }
        if self.seeded.below(8) == 0 {
            self.comets[comet].say_rooms(&mut self.owner.streams[comet]);
        }
        match self.seeded.below(100) {
            0..20 => {
                let target = match self.seeded.below(1 + ROOMS) {
                    0 => Target::Key(self.seeded.below(COMETS)),
                    room => Target::Room(room as u8),
                };
                self.log.push(target);
                self.comets.iter_mut().for_each(|comet| comet.pushed += 1);
            }
            20..34 => {
                let looks = self.seeded.below(3) > 0;
                self.owner.read(&self.log, looks, self.now);
            }
            34..48 => self.owner.send(comet, self.now),
            48..66 => self.comets[comet].take(&mut self.owner.streams[comet]),
            66..80 => self.owner.hear(comet, self.now),
            80..84 => self.commit(),
            84..86 => self.now += Duration::from_millis(15),
            86..89 => self.hang_up(comet),
            89..92 => self.open(comet),
            92..94 => self.zombies_go_on(comet),
            94 => self.comets[comet].take_late(),
            95 => self.comets[comet].flush(),
            96 => self.hand_over(),
            97 => self.crash(),
            98 => self.stall(),
            _ => self.restart(comet),
        }
    }

    fn commit(&mut self) {
        self.committed = self.committed.max(self.owner.to_commit());
        self.owner.tell(self.now);
    }

    /// The owner hears of a comet, or calls it.
    fn open(&mut self, comet: usize) {
        if self.owner.join(comet, self.now) || self.owner.has_let_go(comet) {
            self.comets[comet].left_out();
        }
        self.owner.open(comet, self.comets[comet].way, self.now);
    }

    /// The stream to a comet breaks: what is on its way down may still arrive, no answer does.
    fn hang_up(&mut self, comet: usize) {
        if let Some(stream) = self.owner.close(comet, self.now)
            && self.seeded.below(2) == 0
        {
            self.comets[comet].late.push_back(stream);
        }
    }

    /// The partition goes to another job in good order.
    fn hand_over(&mut self) {
        self.committed = self.committed.max(self.owner.to_commit());
        self.replace();
    }

    /// The owner is gone, or believes for a while that it is not.
    fn crash(&mut self) {
        let zombie = self.replace();
        if self.seeded.below(2) == 0 {
            self.zombies.push(zombie);
        }
    }

    fn replace(&mut self) -> Job {
        let generation = self.owner.generation + 1;
        let known: [bool; COMETS] = std::array::from_fn(|_| self.seeded.below(4) > 0);
        let unknown = self.comets.iter_mut().zip(known).filter(|(_, is_known)| !is_known);
        unknown.for_each(|(comet, _)| comet.left_out());
        std::mem::replace(&mut self.owner, Job::new(generation, self.committed, known, self.mutant))
    }

    fn zombies_go_on(&mut self, comet: usize) {
        let act = self.seeded.below(6);
        for zombie in &mut self.zombies {
            match act {
                0 => zombie.read(&self.log, true, self.now),
                1 | 2 => zombie.send(comet, self.now),
                3 => self.comets[comet].take(&mut zombie.streams[comet]),
                4 => zombie.hear(comet, self.now),
                _ => zombie.open(comet, self.comets[comet].way, self.now),
            }
        }
    }

    /// So much time passes that whoever does not answer is let go.
    fn stall(&mut self) {
        for _ in 0..STALL.as_secs() {
            self.now += Duration::from_secs(1);
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        for job in std::iter::once(&mut self.owner).chain(&mut self.zombies) {
            for (index, late) in job.let_go(self.now) {
                self.comets[index].left_out();
                self.comets[index].late.extend(late);
            }
        }
    }

    fn restart(&mut self, comet: usize) {
        for job in std::iter::once(&mut self.owner).chain(&mut self.zombies) {
            drop(job.close(comet, self.now));
        }
        let way = if self.seeded.below(4) > 0 { Way::Stream } else { Way::Calls };
        self.comets[comet].restart(way);
    }

    /// Nothing fails any more: everything comes to its end.
    fn rest(&mut self) -> Result<(), String> {
        self.zombies.clear();
        for _ in 0..REST {
            self.now += Duration::from_millis(15);
            self.owner.read(&self.log, true, self.now);
            for index in 0..COMETS {
                self.comets[index].take_late();
                self.comets[index].let_in();
                self.open(index);
                self.comets[index].say_rooms(&mut self.owner.streams[index]);
                self.owner.send(index, self.now);
                for _ in 0..8 {
                    self.comets[index].take(&mut self.owner.streams[index]);
                }
                self.comets[index].flush();
                self.owner.hear(index, self.now);
            }
            self.commit();
            let is_empty = self.comets.iter().all(Comet::is_idle) && self.owner.is_idle();
            if is_empty && self.committed == self.log.len() as u64 {
                return Ok(());
            }
        }
        Err(format!("no rest: {} of {} records committed", self.committed, self.log.len()))
    }
}
