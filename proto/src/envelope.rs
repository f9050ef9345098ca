//! What clients with capabilities are told beyond goim: the op 25 message and the JSON bodies of ops 8 and 19–24.
//!
//! Op 25, big-endian: `u16` room length, room, `u32` epoch, `u32` partition, `u64` offset, `i32` the pusher's op, body.
//! The room is empty for a push to keys, members or all. Epoch 0 = the push has no id: show it, do not filter by it.

use std::collections::BTreeMap;

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use crate::{op, packet};

/// What a client may announce in its auth body (`"caps": [...]`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Pushes come as op 25 with their room and id; the auth reply has a body.
    pub envelope: bool,
    /// Ops 19–22: several rooms on one connection.
    pub rooms: bool,
    /// Op 18: connects elsewhere first when it is told to leave.
    pub moves: bool,
}

impl Caps {
    /// Reads the announced names; unknown ones are ignored, `rooms` and `move` imply `envelope`.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut caps = Self::default();
        for name in names {
            match name {
                "envelope" => caps.envelope = true,
                "rooms" => (caps.envelope, caps.rooms) = (true, true),
                "move" => (caps.envelope, caps.moves) = (true, true),
                _ => {}
            }
        }
        caps
    }

    /// Whether the client announced anything we know.
    pub fn any(self) -> bool {
        self.envelope
    }
}

/// Where a push stands in the queue: names it for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PushId {
    /// Hash of the topic's id; 0 = no id.
    pub epoch: u32,
    /// Partition of the topic.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
}

/// One push as an op 25 body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The room it was pushed to, empty when it was not pushed to a room.
    pub room: &'a str,
    /// Its place in the queue.
    pub id: PushId,
    /// The pusher's operation.
    pub op: i32,
    /// The pusher's bytes.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Appends the whole op 25 packet.
    ///
    /// # Panics
    /// When the room is longer than 65 535 bytes; rooms are bounded far below it.
    pub fn encode_packet(&self, out: &mut impl BufMut) {
        let room = u16::try_from(self.room.len()).expect("rooms are bounded far below 64 KiB");
        packet::put_header(packet::VERSION, op::MESSAGE, 0, 22 + self.room.len() + self.body.len(), out);
        out.put_u16(room);
        out.put_slice(self.room.as_bytes());
        out.put_u32(self.id.epoch);
        out.put_u32(self.id.partition);
        out.put_u64(self.id.offset);
        out.put_i32(self.op);
        out.put_slice(self.body);
    }

    /// Reads an op 25 body; `None` when it is not one.
    pub fn decode(body: &'a [u8]) -> Option<Self> {
        let (length, rest) = body.split_first_chunk::<2>()?;
        let (room, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (epoch, rest) = rest.split_first_chunk::<4>()?;
        let (partition, rest) = rest.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (op, body) = rest.split_first_chunk::<4>()?;
        Some(Self {
            room: std::str::from_utf8(room).ok()?,
            id: PushId {
                epoch: u32::from_be_bytes(*epoch),
                partition: u32::from_be_bytes(*partition),
                offset: u64::from_be_bytes(*offset),
            },
            op: i32::from_be_bytes(*op),
            body,
        })
    }
}

/// Op 8 body for a client with capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The connection's key, also when logic made it up.
    pub key: String,
    /// The comet's server id.
    pub server: String,
    /// Milliseconds without an op 2 after which the server closes.
    pub heartbeat_ms: u64,
    /// Per partition, what this comet has heard.
    pub through: Through,
}

/// Partition → the offset up to which everything was heard.
pub type Through = BTreeMap<u32, u64>;

/// Op 18 body from the server: connect to another one, with the same key and `"moving": true`, and say here when that is
/// done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// Milliseconds until this connection is closed anyhow.
    pub within_ms: u64,
    /// Where to, best first; empty = as it found this one.
    pub nodes: Vec<String>,
}

/// Op 20 and 22 body: every room asked about, and `through`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomResults {
    /// Room key → `ok` or an error code such as `too_many_rooms`.
    #[serde(flatten)]
    pub rooms: BTreeMap<String, String>,
    /// As in [`Welcome`].
    pub through: Through,
}

/// Op 23 body: what this client was not given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Why, such as `slow`.
    pub reason: String,
    /// How many messages.
    pub dropped: u64,
    /// Where they stood in the queue.
    pub ranges: Vec<GapRange>,
}

/// Part of a [`Gap`]: offsets `from..=to` of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRange {
    /// The room they were for, absent when they were not for a room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// Partition of the topic.
    pub partition: u32,
    /// First offset.
    pub from: u64,
    /// Last offset.
    pub to: u64,
}

/// Op 24 body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// One word for programs, such as `rate_limited`; op 20 names its refusals the same way.
    pub code: String,
    /// A sentence for people that says what to change.
    pub reason: String,
    /// When trying again makes sense, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_these_bytes() {
        let message = Message {
            room: "a://1",
            id: PushId { epoch: 0x0102_0304, partition: 5, offset: 6 },
            op: 1000,
            body: b"hi",
        };
        let mut packet = Vec::new();
        message.encode_packet(&mut packet);
        let expected = b"\0\0\0\x2d\0\x10\0\x01\0\0\0\x19\0\0\0\0\
            \0\x05a://1\x01\x02\x03\x04\0\0\0\x05\0\0\0\0\0\0\0\x06\0\0\x03\xe8hi";
        assert_eq!(packet, expected);
        assert_eq!(Message::decode(&packet[16..]), Some(message));
        assert_eq!(Message::decode(&packet[16..40]), None);
    }

    #[test]
    fn rooms_and_move_imply_the_envelope_and_unknown_names_nothing() {
        let envelope = Caps { envelope: true, ..Caps::default() };
        assert_eq!(Caps::from_names(["rooms"]), Caps { rooms: true, ..envelope });
        assert_eq!(Caps::from_names(["move"]), Caps { moves: true, ..envelope });
        assert_eq!(Caps::from_names(["envelope", "x"]), envelope);
        assert!(!Caps::from_names(["move2"]).any());
    }

    #[test]
    fn a_room_called_through_does_not_hide_the_offsets() {
        let json = serde_json::to_string(&RoomResults {
            rooms: [("live://1".to_owned(), "ok".to_owned())].into(),
            through: [(3, 9)].into(),
        })
        .unwrap();
        assert_eq!(json, r#"{"live://1":"ok","through":{"3":9}}"#);
    }
}
