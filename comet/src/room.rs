//! One room's channels in one shard. A room begins with its first member and ends with its last.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use proto::RoomId;

use crate::bucket::Bucket;
use crate::channel::Channel;

/// The channels of one room in this shard.
#[derive(Debug)]
pub struct Room {
    /// The room's key.
    pub id: RoomId,
    members: RefCell<Vec<Member>>,
}

#[derive(Debug)]
struct Member {
    channel: Rc<Channel>,
    place: Rc<Cell<usize>>,
}

/// A channel being in a room: one record that links both ways. Dropping it leaves.
#[derive(Debug)]
pub struct Membership {
    bucket: Rc<Bucket>,
    room: Rc<Room>,
    place: Rc<Cell<usize>>,
}

impl Room {
    pub(crate) fn new(id: RoomId) -> Rc<Self> {
        Rc::new(Self { id, members: RefCell::default() })
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.members.borrow().len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.members.borrow().is_empty()
    }

    /// Who is in it now.
    pub fn members(&self) -> Vec<Rc<Channel>> {
        self.members.borrow().iter().map(|member| member.channel.clone()).collect()
    }
}

impl Membership {
    pub(crate) fn new(bucket: Rc<Bucket>, room: Rc<Room>, channel: &Rc<Channel>) -> Self {
        let place = {
            let mut members = room.members.borrow_mut();
            let place = Rc::new(Cell::new(members.len()));
            members.push(Member { channel: channel.clone(), place: place.clone() });
            place
        };
        Self { bucket, room, place }
    }

    /// The room.
    pub fn room(&self) -> &Room {
        &self.room
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = self.room.members.borrow_mut();
        let place = self.place.get();
        members.swap_remove(place);
        if let Some(moved) = members.get(place) {
            moved.place.set(place);
        }
        if members.is_empty() {
            self.bucket.forget(&self.room);
        } else if members.len() * 4 < members.capacity() {
            let keep = members.len() * 2;
            members.shrink_to(keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::channel;

    proptest! {
        #[test]
        fn rooms_hold_exactly_those_who_entered_and_did_not_leave(
            steps in proptest::collection::vec((0usize..8, 0usize..3, any::<bool>()), 0..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _entered = runtime.enter();
            let bucket = Rc::new(Bucket::default());
            let channels: Vec<_> = (0..8).map(|index| channel(&format!("k{index}"))).collect();
            let rooms: Vec<RoomId> = (0..3).map(|index| RoomId::from_parts("live", &index.to_string())).collect();
            let mut inside: Vec<Vec<Option<Membership>>> = (0..8).map(|_| (0..3).map(|_| None).collect()).collect();
            for (who, room, enter) in steps {
                let place = &mut inside[who][room];
                match (enter, &place) {
                    (true, None) => *place = Some(bucket.enter(&rooms[room], &channels[who])),
                    (false, _) => *place = None,
                    _ => {}
                }
                for (index, room) in rooms.iter().enumerate() {
                    let expected: Vec<&str> =
                        (0..8).filter(|who| inside[*who][index].is_some()).map(|who| channels[who].key.as_str()).collect();
                    let mut found: Vec<String> = bucket.room(room.as_str()).map_or_else(Vec::new, |room| {
                        room.members().iter().map(|channel| channel.key.to_string()).collect()
                    });
                    found.sort();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
