//! What is kept back from a comet of one partition: for rooms that nobody is in there, as far as is known. Found by room
//! when one begins, and by offset when the comet has answered, without a look at the rest.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::room::Item;

/// Records that are kept back, each room's oldest first.
#[derive(Debug, Default)]
pub(super) struct Kept {
    rooms: HashMap<Arc<str>, VecDeque<Item>>,
    /// Offsets and their rooms, oldest first; among them some that were taken out with their room.
    order: VecDeque<(u64, Arc<str>)>,
}

impl Kept {
    /// Adds a record, later than those that are here.
    pub(super) fn push(&mut self, room: Arc<str>, item: Item) {
        self.order.push_back((item.push.id.offset, room.clone()));
        self.rooms.entry(room).or_default().push_back(item);
    }

    /// The first offset; it may have been taken out with its room.
    pub(super) fn first(&self) -> Option<u64> {
        self.order.front().map(|(offset, _)| *offset)
    }

    /// The last offset; it may have been taken out with its room.
    pub(super) fn last(&self) -> Option<u64> {
        self.order.back().map(|(offset, _)| *offset)
    }

    /// Takes out what is for this room.
    pub(super) fn of(&mut self, room: &str) -> VecDeque<Item> {
        self.rooms.remove(room).unwrap_or_default()
    }

    /// Takes out what is before this offset.
    pub(super) fn before(&mut self, end: u64) -> Vec<Item> {
        let mut taken = vec![];
        while let Some((offset, room)) = self.order.pop_front_if(|(offset, _)| *offset < end) {
            let Some(items) = self.rooms.get_mut(&room) else {
                continue;
            };
            taken.extend(items.pop_front_if(|item| item.push.id.offset == offset));
            if items.is_empty() {
                self.rooms.remove(&room);
            }
        }
        taken
    }

    /// Takes out everything, each room's oldest first.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Item> + use<'_> {
        self.order.clear();
        self.rooms.drain().flat_map(|(_, items)| items)
    }

    /// How many records, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let sizes = self.rooms.values().flatten().map(Item::size);
        sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }
}

#[cfg(test)]
mod tests {
    use proto::logic::PushMsg;
    use tokio::time::Instant;

    use super::*;
    use crate::push::Push;
    use crate::push::tests::record;

    fn keep(kept: &mut Kept, offset: u64, room: &str) {
        let message = PushMsg { r#type: 1, room: room.into(), ..Default::default() };
        let push = Arc::new(Push::decode(&record(0, offset, &message), 1, Instant::now()).unwrap());
        kept.push(room.into(), Item { push, speed: 0 });
    }

    fn offsets(items: impl IntoIterator<Item = Item>) -> Vec<u64> {
        items.into_iter().map(|item| item.push.id.offset).collect()
    }

    #[tokio::test]
    async fn a_room_is_taken_out_whole_and_what_is_left_by_offset_also_when_the_room_is_kept_back_again() {
        let mut kept = Kept::default();
        for (offset, room) in [(1, "a"), (2, "b"), (4, "a"), (6, "c")] {
            keep(&mut kept, offset, room);
        }
        assert_eq!(offsets(kept.of("a")), [1, 4]);
        assert_eq!(offsets(kept.of("nobody")), [0; 0]);
        keep(&mut kept, 7, "a");
        assert_eq!((kept.size().0, kept.last()), (3, Some(7)));
        assert_eq!(offsets(kept.before(7)), [2, 6]);
        assert_eq!(offsets(kept.before(7)), [0; 0]);
        keep(&mut kept, 8, "a");
        assert_eq!(offsets(kept.drain()), [7, 8]);
        assert_eq!((kept.size(), kept.last()), ((0, 0), None));
    }
}
