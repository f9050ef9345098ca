//! A comet with one client after the other, who enters and leaves rooms and has the key of records for this comet: the
//! real repeat filter, owners and interest, and a model of what stands between them and the streams. It also judges its
//! clients.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use comet::interest::{Audience, Interest};
use comet::owners::Heard;
use comet::repeats::{Repeats, Sender};
use job::comet::queue::Way;
use job::push::Target as To;
use proto::Key;
use proto::envelope::PushId;

use super::job_model::{Answer, EPOCH, Frame, Stream};
use super::world::{Mutant, ROOMS, Target};

/// What one client saw of the world.
#[derive(Default)]
struct Life {
    /// It was there before this record was pushed.
    began: u64,
    is_over: bool,
    got: Vec<u64>,
    gaps: Vec<Range<u64>>,
    /// For each room that it is in: it was in before this record was pushed.
    rooms: [Option<u64>; ROOMS + 1],
}

pub struct Comet {
    index: usize,
    mutant: Mutant,
    repeats: Repeats,
    interest: Arc<Interest>,
    highest: Option<u64>,
    last_generation: i32,
    lives: Vec<Life>,
    /// The last of them is connected.
    is_here: bool,
    is_claimed: bool,
    /// Streams that are broken at the other end, with what was on its way.
    pub late: VecDeque<Stream>,
    /// Whether this process has streams, or is made calls and can be told nothing.
    pub way: Way,
    /// Some job has let this comet go, or did not know it for a while.
    was_left_out: bool,
    /// Records that were pushed so far.
    pub pushed: u64,
    /// Answered but not enqueued yet, by a mutant alone.
    unqueued: Vec<(Frame, i32)>,
}

impl Comet {
    pub fn new(index: usize, mutant: Mutant) -> Self {
        Self {
            index,
            mutant,
            repeats: Repeats::default(),
            interest: Arc::default(),
            highest: None,
            last_generation: 0,
            lives: Vec::new(),
            is_here: false,
            is_claimed: false,
            late: VecDeque::new(),
            way: Way::Stream,
            was_left_out: false,
            pushed: 0,
            unqueued: Vec::new(),
        }
    }

    /// Some job drops what is for this comet. Who can be told nothing is not told of it: goim's guarantees, no more.
    pub fn left_out(&mut self) {
        self.was_left_out = true;
        let way = self.way;
        if let Some(life) = self.client() {
            life.is_over |= way == Way::Calls;
        }
    }

    /// A client comes, if there is none and clients are let in. A real comet lets them in as well when nobody vouched
    /// for anything for ten seconds, and promises them nothing until somebody does; one that is made calls lets them in
    /// so, by when somebody has claimed it.
    pub fn let_in(&mut self) {
        let is_complete = match self.way {
            Way::Stream => self.interest.owners().are_complete(),
            Way::Calls => self.is_claimed,
        };
        if (is_complete || self.mutant == Mutant::OpenGate) && !self.is_here {
            self.is_here = true;
            self.lives.push(Life { began: self.pushed, ..Life::default() });
        }
    }

    /// The client enters this room, or leaves it if it is to.
    pub fn enter_or_leave(&mut self, room: u8, leaves: bool) {
        let (pushed, interest) = (self.pushed, self.interest.clone());
        let Some(life) = self.client() else {
            return;
        };
        let (place, name) = (&mut life.rooms[usize::from(room)], room.to_string());
        match place {
            Some(_) if leaves => {
                *place = None;
                interest.end(&name.as_str().into());
            }
            None if !leaves => {
                interest.begin(&name.as_str().into());
                *place = Some(pushed);
            }
            _ => {}
        }
    }

    /// Says on this stream what changed in the rooms.
    pub fn say_rooms(&self, stream: &mut Option<Stream>) {
        let Some(stream) = stream.as_mut().filter(|stream| stream.way == Way::Stream) else {
            return;
        };
        let rooms = stream.rooms.get_or_insert_with(|| self.interest.stream());
        for mut rooms in rooms.take().unwrap() {
            if self.mutant == Mutant::RoomsUntold && rooms.complete {
                rooms.entered.clear();
            }
            stream.up.push_back(Answer::Rooms(rooms));
        }
    }

    /// The process ends and another one begins, which may be an older or a newer one; the client comes back once it is
    /// let in.
    pub fn restart(&mut self, way: Way) {
        let mut lives = std::mem::take(&mut self.lives);
        if let Some(life) = lives.last_mut() {
            life.is_over = true;
        }
        let (was_left_out, pushed) = (self.was_left_out, self.pushed);
        *self = Self { lives, way, was_left_out, pushed, ..Self::new(self.index, self.mutant) };
    }

    /// Takes the next frame of a stream and answers it.
    pub fn take(&mut self, slot: &mut Option<Stream>) {
        let Some(stream) = slot else {
            return;
        };
        let Some(frame) = stream.down.pop_front() else {
            return;
        };
        let fenced = if self.mutant == Mutant::AnswerEarly && matches!(frame, Frame::Batch { .. }) {
            self.unqueued.push((frame, stream.generation));
            false
        } else {
            self.obey(frame, stream.generation)
        };
        if self.mutant != Mutant::RoomsLate {
            self.say_rooms(slot);
        }
        slot.iter_mut().for_each(|stream| stream.up.push_back(Answer::Taken(fenced)));
    }

    /// Takes the next frame of a stream that nobody listens to any more.
    pub fn take_late(&mut self) {
        // Whoever answered before enqueueing loses what it had with the stream.
        self.unqueued.clear();
        if let Some(stream) = self.late.front_mut() {
            let (frame, generation) = (stream.down.pop_front(), stream.generation);
            match frame {
                Some(frame) => drop(self.obey(frame, generation)),
                None => drop(self.late.pop_front()),
            }
        }
    }

    /// What was answered too early is enqueued at last.
    pub fn flush(&mut self) {
        for (frame, generation) in std::mem::take(&mut self.unqueued) {
            self.obey(frame, generation);
        }
    }

    pub fn is_idle(&self) -> bool {
        self.late.is_empty() && self.unqueued.is_empty()
    }

    /// Does what a frame says. Returns whether it was fenced.
    fn obey(&mut self, frame: Frame, generation: i32) -> bool {
        if !self.interest.owners().claim("g", EPOCH, 0, generation) {
            return true;
        }
        if self.mutant == Mutant::FilterPerOwner
            && std::mem::replace(&mut self.last_generation, generation) < generation
        {
            self.repeats = Repeats::default();
        }
        match frame {
            Frame::Claim => {
                self.is_claimed = true;
                self.interest.owners().count("g", EPOCH, 1);
            }
            Frame::Vouch(vouches) => {
                for vouch in vouches {
                    let mut floor = vouch.floor;
                    if let Some(offset) = vouch.sent.checked_sub(1) {
                        self.see(offset, generation);
                    }
                    let vouched = vouch.from..vouch.through;
                    let heard = self.interest.owners().hear("g", EPOCH, 0, generation, vouched);
                    if let Heard::Missed(range) = heard
                        && self.mutant != Mutant::SilentHole
                    {
                        floor = floor.max(vouch.from);
                        if let Some(life) = self.client() {
                            life.gaps.push(range);
                        }
                    }
                    self.repeats.settle(&"g".into(), EPOCH, 0, floor);
                }
            }
            Frame::Batch { batch, floor } => {
                let sender = Sender { group: "g".into(), floor: Some(floor) };
                for item in batch.items.iter() {
                    let id = &item.push.id;
                    let id = PushId { epoch: id.epoch, partition: id.partition, offset: id.offset };
                    self.see(id.offset, generation);
                    if self.is_for_somebody(id, &item.push.target)
                        && self.is_new(&sender, id, &item.push.target)
                        && let Some(life) = self.client()
                    {
                        life.got.push(id.offset);
                    }
                }
            }
        }
        false
    }

    fn see(&self, offset: u64, generation: i32) {
        let id = PushId { epoch: EPOCH, partition: 0, offset };
        assert!(self.interest.owners().see("g", id, generation), "who is fenced was turned away before");
    }

    fn is_for_somebody(&self, id: PushId, target: &To) -> bool {
        let To::Room(room) = target else {
            return true;
        };
        match self.interest.audience(room, Some(id.partition)) {
            Audience::Nobody => false,
            Audience::Since(_) if self.mutant == Mutant::RoomsSinceEver => true,
            Audience::Since(since) => since.is_none_or(|since| !since.covers("g", id)),
        }
    }

    /// Who is connected.
    fn client(&mut self) -> Option<&mut Life> {
        self.lives.last_mut().filter(|_| self.is_here)
    }

    fn is_new(&mut self, sender: &Sender, id: PushId, target: &To) -> bool {
        match (self.mutant, target) {
            (Mutant::NoFilter, _) => true,
            (Mutant::Watermark, _) => {
                let is_new = self.highest.is_none_or(|highest| highest < id.offset);
                self.highest = self.highest.max(Some(id.offset));
                is_new
            }
            (_, To::Keys(keys)) => {
                let keys: Vec<Key> = keys.iter().map(|key| key.as_str().into()).collect();
                let mut is_new = false;
                let is_here = self.is_here;
                self.repeats.deliver(sender, id, &keys, |_| {
                    is_new = true;
                    is_here
                });
                is_new
            }
            _ => self.repeats.first(sender, id),
        }
    }

    /// Whether every client was given everything once and in order, or was told.
    pub fn judge(&self, log: &[Target]) -> Result<(), String> {
        for (number, life) in self.lives.iter().enumerate() {
            let who = format!("client {number} of comet {}", self.index);
            let mut once = HashSet::new();
            if let Some(twice) = life.got.iter().find(|offset| !once.insert(**offset)) {
                return Err(format!("{who} was given record {twice} twice"));
            }
            let mut last: Vec<(Target, u64)> = Vec::new();
            // What was pushed before it was there is not owed to it: when the comet has restarted, a new owner may send
            // that once more, after what is later.
            for offset in life.got.iter().filter(|offset| **offset >= life.began) {
                let target = log[*offset as usize];
                match last.iter_mut().find(|(of, _)| *of == target) {
                    Some((_, before)) if *before >= *offset => {
                        return Err(format!("{who} was given record {offset} of {target:?} after {before}"));
                    }
                    Some((_, before)) => *before = *offset,
                    None => last.push((target, *offset)),
                }
            }
            if life.is_over {
                continue;
            }
            if !life.gaps.is_empty() && !self.was_left_out {
                return Err(format!("{who} was told of the gaps {:?} although nobody left it out", life.gaps));
            }
            for (offset, target) in (0..).zip(log).skip(life.began as usize) {
                let is_for_it = match target {
                    Target::Key(comet) => *comet == self.index,
                    Target::Room(room) => life.rooms[usize::from(*room)].is_some_and(|entered| entered <= offset),
                };
                let is_told = life.gaps.iter().any(|gap| gap.contains(&offset));
                if is_for_it && !is_told && !life.got.contains(&offset) {
                    return Err(format!("{who} was not given record {offset} and not told"));
                }
            }
        }
        Ok(())
    }
}
