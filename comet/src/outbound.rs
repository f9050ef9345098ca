//! What a connection's socket has refused so far: frames in order, bounded in bytes.
//!
//! Pushes may be dropped from it, oldest first, when a full connection is to keep up with the present; replies never.
//! What was dropped is remembered as a gap, and the client is told at the place where it was.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use proto::envelope::{Gap, GapRange};
use proto::op;
use proto::packet::Packet;

use crate::message::{Push, framed};
use crate::transport::Framing;

/// How many ranges one gap lists; beyond it the last range of the same place is widened.
const MAX_RANGES: usize = 64;

/// Frames that wait for a socket.
#[derive(Debug, Default)]
pub struct Outbound {
    entries: VecDeque<Entry>,
    bytes: usize,
    replies: usize,
    started: bool,
    gap: Option<Gap>,
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    push: Option<Arc<Push>>,
}

impl Outbound {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that wait behind the frame that was begun, which must be finished whatever its size.
    pub fn waiting(&self) -> usize {
        let begun = self.entries.front().filter(|_| self.started).map_or(0, |entry| entry.bytes.len());
        self.bytes - begun
    }

    /// Bytes of replies that wait: a client that asks without reading is not read from while there are many.
    pub fn reply_bytes(&self) -> usize {
        self.replies
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.gap.is_none()
    }

    /// Appends a reply.
    pub fn reply(&mut self, bytes: Bytes) {
        self.replies += bytes.len();
        self.append(Entry { bytes, push: None });
    }

    /// Appends a push's frame, or what is left of it when the socket took `taken` bytes already.
    pub fn push(&mut self, push: Arc<Push>, mut bytes: Bytes, taken: usize) {
        if taken > 0 {
            debug_assert!(self.entries.is_empty(), "only the first frame can be partly written");
            bytes.advance(taken);
            self.started = true;
        }
        self.append(Entry { bytes, push: Some(push) });
    }

    /// Drops pushes, oldest first, until `room` more bytes fit below `limit` or nothing is left to drop.
    /// Returns how many messages were dropped.
    pub fn make_room(&mut self, room: usize, limit: usize) -> u64 {
        let mut dropped = 0;
        let mut index = usize::from(self.started);
        while self.waiting() + room > limit && index < self.entries.len() {
            if self.entries[index].push.is_none() {
                index += 1;
                continue;
            }
            let entry = self.entries.remove(index).expect("index is below the length");
            self.bytes -= entry.bytes.len();
            if let Some(push) = entry.push {
                dropped += push.messages() as u64;
                self.miss(&push);
            }
        }
        dropped
    }

    /// Notes a push that this client is not given.
    pub fn miss(&mut self, push: &Push) {
        let gap = self.gap.get_or_insert_with(|| Gap { reason: "slow".into(), dropped: 0, ranges: Vec::new() });
        let room = (!push.room().is_empty()).then(|| push.room().to_owned());
        for part in push.parts() {
            gap.dropped += 1;
            if part.id.epoch == 0 {
                continue;
            }
            let (partition, offset) = (part.id.partition, part.id.offset);
            let known = gap.ranges.iter().rposition(|range| range.partition == partition && range.room == room);
            match known {
                Some(known) => {
                    let range = &mut gap.ranges[known];
                    range.from = range.from.min(offset);
                    range.to = range.to.max(offset);
                }
                None if gap.ranges.len() < MAX_RANGES => {
                    gap.ranges.push(GapRange { room: room.clone(), partition, from: offset, to: offset });
                }
                None => {}
            }
        }
    }

    /// The bytes to write next, as many frames as `slices` holds; none when nothing waits. When pushes were dropped,
    /// `tell` clients get their op 23 in place of them.
    pub fn front<'a>(&'a mut self, framing: Framing, tell: bool, slices: &mut [IoSlice<'a>]) -> usize {
        if let Some(gap) = self.gap.take()
            && tell
        {
            // What was dropped stood before the oldest push that is left.
            let begun = usize::from(self.started);
            let left = self.entries.iter().skip(begun).position(|entry| entry.push.is_some());
            let place = left.map_or(self.entries.len(), |left| begun + left);
            let body = serde_json::to_vec(&gap).expect("a gap is plain data");
            let bytes = framed(framing, &Packet::new(op::GAP, 0, body));
            self.bytes += bytes.len();
            self.replies += bytes.len();
            self.entries.insert(place, Entry { bytes, push: None });
        }
        let mut count = 0;
        for (slice, entry) in slices.iter_mut().zip(&self.entries) {
            *slice = IoSlice::new(&entry.bytes);
            count += 1;
        }
        count
    }

    /// The socket took `count` bytes from the front.
    pub fn taken(&mut self, mut count: usize) {
        while count > 0 {
            let front = self.entries.front_mut().expect("bytes are taken only of what waits");
            let part = count.min(front.bytes.len());
            front.bytes.advance(part);
            count -= part;
            self.bytes -= part;
            if front.push.is_none() {
                self.replies -= part;
            }
            self.started = !front.bytes.is_empty();
            if !self.started {
                self.entries.pop_front();
            }
        }
    }

    /// Forgets everything that was not begun, so that a last word can follow a whole frame.
    pub fn cut(&mut self) {
        self.entries.truncate(usize::from(self.started));
        self.gap = None;
        self.bytes = self.entries.iter().map(|entry| entry.bytes.len()).sum();
        self.replies = self.entries.iter().filter(|entry| entry.push.is_none()).map(|entry| entry.bytes.len()).sum();
    }

    fn append(&mut self, entry: Entry) {
        self.bytes += entry.bytes.len();
        self.entries.push_back(entry);
    }
}

#[cfg(test)]
mod tests {
    use proto::comet::Id;
    use proto::packet;
    use tracing::Span;

    use super::*;
    use crate::message::Variant;

    fn push(offset: u64) -> Arc<Push> {
        let mut raw = Vec::new();
        Packet::new(1000, 0, vec![b'x'; 84]).encode(&mut raw);
        let id = Id { epoch: 1, partition: 2, offset, ..Default::default() };
        Arc::new(Push::new("live://1", packet::raw(raw.into()), &[id], Span::none()))
    }

    fn fill(outbound: &mut Outbound, offsets: std::ops::Range<u64>) {
        for offset in offsets {
            let push = push(offset);
            let bytes = push.frame(Variant::GoimTcp).clone();
            outbound.push(push, bytes, 0);
        }
    }

    fn front(outbound: &mut Outbound, tell: bool) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[])];
        match outbound.front(Framing::Tcp, tell, &mut slices) {
            0 => Vec::new(),
            _ => slices[0].to_vec(),
        }
    }

    #[test]
    fn the_oldest_pushes_go_first_and_are_told_at_their_place() {
        let mut outbound = Outbound::default();
        fill(&mut outbound, 0..5);
        outbound.reply("reply".into());
        assert_eq!(outbound.make_room(100, 400), 3);
        let told = front(&mut outbound, true);
        let (packet, _) = packet::decode(&told, 4096).unwrap().unwrap();
        assert_eq!(packet.op, op::GAP);
        let gap: Gap = serde_json::from_slice(packet.body).unwrap();
        assert_eq!(gap.dropped, 3);
        assert_eq!(gap.ranges, [GapRange { room: Some("live://1".into()), partition: 2, from: 0, to: 2 }]);
        outbound.taken(told.len());
        assert_eq!(front(&mut outbound, true).len(), 100);
        assert_eq!(outbound.bytes(), 205);
    }

    #[test]
    fn a_frame_that_was_begun_and_replies_are_never_dropped() {
        let mut outbound = Outbound::default();
        let first = push(0);
        let bytes = first.frame(Variant::GoimTcp).clone();
        outbound.push(first, bytes, 40);
        outbound.reply("reply".into());
        fill(&mut outbound, 1..3);
        assert_eq!(outbound.make_room(100, 1), 2);
        assert_eq!(front(&mut outbound, true).len(), 60);
        outbound.taken(60);
        assert_eq!(front(&mut outbound, true), b"reply");
        outbound.taken(5);
        let gap = front(&mut outbound, true);
        assert_eq!(packet::decode(&gap, 4096).unwrap().unwrap().0.op, op::GAP);
        outbound.taken(gap.len());
        assert!(outbound.is_empty());
        assert_eq!((outbound.bytes(), outbound.reply_bytes()), (0, 0));
    }

    #[test]
    fn a_gap_follows_the_frame_that_was_begun_and_precedes_what_is_left() {
        let mut outbound = Outbound::default();
        fill(&mut outbound, 0..4);
        outbound.taken(30);
        assert_eq!(outbound.make_room(100, 200), 2);
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(outbound.front(Framing::Tcp, true, &mut slices), 3);
        assert_eq!((slices[0].len(), slices[2].len()), (70, 100));
        assert_eq!(packet::decode(&slices[1], 4096).unwrap().unwrap().0.op, op::GAP);
    }

    #[test]
    fn one_write_may_take_several_frames_and_part_of_the_next() {
        let mut outbound = Outbound::default();
        fill(&mut outbound, 0..3);
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(outbound.front(Framing::Tcp, false, &mut slices), 3);
        outbound.taken(250);
        assert_eq!(front(&mut outbound, false).len(), 50);
        assert_eq!(outbound.make_room(1000, 0), 0);
    }

    #[test]
    fn clients_without_capabilities_are_not_told() {
        let mut outbound = Outbound::default();
        fill(&mut outbound, 0..2);
        assert_eq!(outbound.make_room(100, 200), 1);
        assert_eq!(front(&mut outbound, false).len(), 100);
    }
}
