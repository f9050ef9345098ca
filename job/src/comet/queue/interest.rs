//! In which rooms somebody is at a comet, as it says on its stream: what is for other rooms is not sent to it, but kept
//! back until it has answered that it was told of later records.
//!
//! The comet says that a room began before the client who began it is told that he is in, and before it answers anything
//! later. So whatever is pushed to the room afterwards is either read here after that word, or still kept back when it
//! comes: then it goes out first, oldest first. Until a comet has named all its rooms, and while there is no stream to it,
//! somebody is in every room; a stream that breaks loses words, so what was kept back goes out on the next.

use std::collections::HashSet;
use std::sync::Arc;

use proto::delivery::Interest;
use tokio::time::Instant;

use super::kept::Kept;
use super::slot::Slot;
use super::{Inner, Queue};
use crate::push::Target;
use crate::room::Item;

/// Kept back bytes after which the comet is told at once how far it was sent things.
pub(super) const ASK: usize = 1 << 20;

/// The rooms of a comet.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    names: HashSet<Box<str>>,
    /// Whether nobody is in any other room.
    are_all: bool,
}

impl Rooms {
    /// The room that this is for, when nobody is in it.
    pub(super) fn lacked(&self, target: &Target) -> Option<Arc<str>> {
        match target {
            Target::Room(room) if self.are_all && !self.names.contains(&**room) => Some(room.clone()),
            _ => None,
        }
    }
}

impl Queue {
    /// The comet says in which rooms somebody is.
    pub fn interested(&self, Interest { entered, left, complete }: Interest, now: Instant) {
        let mut inner = self.inner.lock();
        for room in &left {
            inner.rooms.names.remove(room.as_str());
        }
        let began = entered.into_iter().map(String::into_boxed_str);
        let began: Vec<Box<str>> = began.filter(|room| inner.rooms.names.insert(room.clone())).collect();
        inner.rooms.are_all |= complete;
        inner.release(now, |kept| began.iter().flat_map(|room| kept.of(room)).collect());
        drop(inner);
        self.wake.notify_one();
    }
}

impl Inner {
    /// Nothing is known of the comet's rooms: what was kept back is sent.
    pub(super) fn forget_rooms(&mut self, now: Instant) {
        self.rooms = Rooms::default();
        self.release(now, |kept| kept.drain().collect());
    }

    /// Owes the comet what `take` takes out of what was kept back, each room's in its order.
    fn release(&mut self, now: Instant, mut take: impl FnMut(&mut Kept) -> Vec<Item>) {
        let Self { slots, withheld, items, waiting_since, .. } = self;
        let mut numbers = vec![];
        for (number, slot) in slots.iter_mut() {
            let Slot { withheld: kept, lane, told, .. } = slot;
            for item in take(kept) {
                *withheld -= item.size();
                *items += 1;
                told.settled = told.settled.min(item.push.id.offset);
                lane.push(item, now);
                numbers.push(*number);
            }
        }
        if !numbers.is_empty() {
            waiting_since.get_or_insert(now);
            numbers.into_iter().for_each(|number| self.poke(number));
        }
    }
}
