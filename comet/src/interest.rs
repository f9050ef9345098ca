//! In which rooms somebody is here, in any shard, and what jobs are told of that on their streams.
//!
//! A stream begins with every room and goes on with what changes. Whoever enters a room is told that he is in after the
//! change was noted for every open stream; whatever answers a stream gives is sent behind the changes noted before. So a
//! job that is answered "heard of everything until offset n" has been told of every room that somebody entered before
//! this comet heard that: what is for other rooms and before n need not be sent here.
//!
//! With a room is kept how far records had been seen when it began. What is older and comes later all the same, from a
//! job that takes over, is not for those who are here, and would come after what they were given already. A room's records
//! are in one partition, so once the first has come the others are forgotten: most rooms keep next to nothing.
//!
//! One lock for all shards, taken when a room begins or ends in a shard and once a push to a room, not for members.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::{Mutex, MutexGuard};
use proto::RoomId;
use proto::delivery;
use proto::envelope::Through;
use slab::Slab;
use tokio::sync::Notify;

use crate::owners::{Owners, Seen};

/// Bytes of room names in one message to a job.
const CHUNK: usize = 256 * 1024;
/// Bytes of changes that may wait for a stream: a job that does not take them must begin anew.
const MAX_CHANGES: usize = 64 << 20;
/// About what keeping a change costs, beside the room's name.
const CHANGE: usize = 64;

/// The rooms of one comet, and what its jobs have said.
#[derive(Debug, Default)]
pub struct Interest {
    /// Locked inside the other, or alone.
    owners: Mutex<Owners>,
    /// Told when owners have vouched for more.
    heard: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    rooms: AHashMap<RoomId, Here>,
    streams: Slab<Changes>,
}

/// A room that somebody is in.
#[derive(Debug)]
struct Here {
    /// In so many shards.
    shards: usize,
    /// What had been seen when it began.
    since: Option<Arc<Seen>>,
}

/// What a stream is still to be told.
#[derive(Debug)]
struct Changes {
    /// The rooms that changed, and whether somebody is there now; `None` = there were too many.
    rooms: Option<HashMap<RoomId, bool>>,
    /// What they take.
    bytes: usize,
    /// It was not told of all rooms yet.
    is_new: bool,
    wake: Arc<Notify>,
}

/// One job's stream, as far as rooms go. Dropping it ends it.
#[derive(Debug)]
pub struct Stream {
    interest: Arc<Interest>,
    index: usize,
    wake: Arc<Notify>,
}

/// Whether a room's push is for anybody here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// For nobody.
    Nobody,
    /// For whoever is in the room, less what is older than this.
    Since(Option<Arc<Seen>>),
}

impl Interest {
    /// Who owns what, and what they vouched for.
    pub fn owners(&self) -> MutexGuard<'_, Owners> {
        self.owners.lock()
    }

    /// How far records have been seen by now, for a client.
    pub fn through(&self) -> Through {
        let seen = self.owners.lock().seen();
        seen.map(|seen| seen.through()).unwrap_or_default()
    }

    /// Owners have vouched for more.
    pub fn has_heard(&self) {
        self.heard.notify_waiters();
    }

    /// Waits until owners have vouched for everything before these offsets. Cancel safe.
    pub async fn vouched(&self, through: &Through) {
        loop {
            // Before it is looked, so that nothing is missed in between.
            let heard = self.heard.notified();
            if self.owners.lock().have_vouched(through) {
                return;
            }
            heard.await;
        }
    }

    /// The room began in a shard.
    pub fn begin(&self, room: &RoomId) {
        let mut inner = self.inner.lock();
        if let Some(here) = inner.rooms.get_mut(room) {
            here.shards += 1;
            return;
        }
        inner.change(room, true);
        // Noted with the change: whoever is answered behind it was answered behind this, too.
        let since = self.owners.lock().seen();
        inner.rooms.insert(room.clone(), Here { shards: 1, since });
    }

    /// The room ended in a shard.
    pub fn end(&self, room: &RoomId) {
        let mut inner = self.inner.lock();
        let Some(here) = inner.rooms.get_mut(room) else {
            return;
        };
        here.shards -= 1;
        if here.shards == 0 {
            inner.rooms.remove(room);
            inner.change(room, false);
        }
    }

    /// Whom a push to this room is for, which is of this partition if that is known. To be asked after its records were seen.
    pub fn audience(&self, room: &str, partition: Option<u32>) -> Audience {
        let mut inner = self.inner.lock();
        let Some(here) = inner.rooms.get_mut(room) else {
            return Audience::Nobody;
        };
        let only = here.since.as_ref().zip(partition).and_then(|(since, partition)| since.narrowed(partition));
        if let Some(only) = only {
            here.since = Some(Arc::new(only));
        }
        Audience::Since(here.since.clone())
    }

    /// A stream that is to be told of every room.
    pub fn stream(self: &Arc<Self>) -> Stream {
        let mut inner = self.inner.lock();
        let wake = Arc::new(Notify::new());
        wake.notify_one();
        let rooms = Some(inner.rooms.keys().map(|room| (room.clone(), true)).collect());
        let index = inner.streams.insert(Changes { rooms, bytes: 0, is_new: true, wake: wake.clone() });
        Stream { interest: self.clone(), index, wake }
    }
}

impl Inner {
    fn change(&mut self, room: &RoomId, is_here: bool) {
        for (_, stream) in &mut self.streams {
            if let Some(rooms) = &mut stream.rooms {
                if rooms.insert(room.clone(), is_here).is_none() {
                    stream.bytes += room.as_str().len() + CHANGE;
                }
                if stream.bytes > MAX_CHANGES && !stream.is_new {
                    stream.rooms = None;
                }
                stream.wake.notify_one();
            }
        }
    }
}

impl Stream {
    /// Waits until there may be something to say. Cancel safe.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Everything that there is to say by now, to be sent in this order and before whatever is decided later. `None` =
    /// this stream has waited for so much that it must end.
    pub fn take(&self) -> Option<Vec<delivery::Interest>> {
        let (rooms, is_new) = {
            let mut inner = self.interest.inner.lock();
            let changes = &mut inner.streams[self.index];
            let rooms = std::mem::take(changes.rooms.as_mut()?);
            changes.bytes = 0;
            (rooms, std::mem::replace(&mut changes.is_new, false))
        };
        let mut said = vec![];
        let (mut next, mut size) = (delivery::Interest::default(), 0);
        for (room, is_here) in rooms {
            size += room.as_str().len();
            let list = if is_here { &mut next.entered } else { &mut next.left };
            list.push(room.to_string());
            if size >= CHUNK {
                said.push(std::mem::take(&mut next));
                size = 0;
            }
        }
        next.complete = is_new;
        if next != delivery::Interest::default() {
            said.push(next);
        }
        Some(said)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.interest.inner.lock().streams.remove(self.index);
    }
}

#[cfg(test)]
mod tests;
