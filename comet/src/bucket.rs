//! A shard of channels: key → channel, room id → room. Belongs to one thread, so nothing is locked.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use proto::{Key, RoomId};

use crate::channel::Channel;
use crate::interest::Interest;
use crate::room::{Membership, Room};

/// The channels and rooms of one shard.
#[derive(Debug, Default)]
pub struct Bucket {
    channels: RefCell<AHashMap<Key, Rc<Channel>>>,
    rooms: RefCell<AHashMap<RoomId, Rc<Room>>>,
    /// Told of rooms that begin and end.
    interest: Arc<Interest>,
}

impl Bucket {
    /// An empty one that tells of its rooms there.
    pub fn new(interest: Arc<Interest>) -> Self {
        Self { interest, ..Self::default() }
    }

    /// Puts the channel under its key; the one that was there is returned.
    pub fn insert(&self, channel: &Rc<Channel>) -> Option<Rc<Channel>> {
        self.channels.borrow_mut().insert(channel.key.clone(), channel.clone())
    }

    /// Takes the channel out, unless another has its key by now. Returns whether it was there.
    pub fn remove(&self, channel: &Rc<Channel>) -> bool {
        let mut channels = self.channels.borrow_mut();
        let ours = channels.get(&channel.key).is_some_and(|found| Rc::ptr_eq(found, channel));
        if ours {
            channels.remove(&channel.key);
        }
        ours
    }

    /// The channel of that key.
    pub fn get(&self, key: &Key) -> Option<Rc<Channel>> {
        self.channels.borrow().get(key).cloned()
    }

    /// Every channel.
    pub fn channels(&self) -> Vec<Rc<Channel>> {
        self.channels.borrow().values().cloned().collect()
    }

    /// Has the channel enter the room, which begins with its first member.
    pub fn enter(self: &Rc<Self>, room: &RoomId, channel: &Rc<Channel>) -> Membership {
        let begin = |id: &RoomId| {
            self.interest.begin(id);
            Room::new(id.clone())
        };
        let room = self.rooms.borrow_mut().entry(room.clone()).or_insert_with_key(begin).clone();
        Membership::new(self.clone(), room, channel)
    }

    /// The room of that id, if anybody is in it.
    pub fn room(&self, id: &str) -> Option<Rc<Room>> {
        self.rooms.borrow().get(id).cloned()
    }

    /// How many are in each room.
    pub fn counts(&self) -> Vec<(RoomId, i32)> {
        let count = |room: &Rc<Room>| i32::try_from(room.len()).unwrap_or(i32::MAX);
        self.rooms.borrow().values().map(|room| (room.id.clone(), count(room))).collect()
    }

    /// Forgets a room that nobody is in.
    pub(crate) fn forget(&self, room: &Room) {
        if self.rooms.borrow_mut().remove(&room.id).is_some() {
            self.interest.end(&room.id);
        }
    }
}
