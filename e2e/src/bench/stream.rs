//! What a push is addressed to, as the number in its stamp, and who the clients of a measurement are.

use std::sync::Arc;

use crate::load::Member;

/// The operation of every push of ours.
pub const OPERATION: i32 = 1000;
/// The room type.
pub const ROOM_TYPE: &str = "bench";

/// What pushes go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Rooms, in turn.
    Room,
    /// Connections by key, in turn.
    Key,
    /// Members, in turn.
    Mid,
    /// Everybody.
    All,
    /// Rooms in turn, and every fifth push to a key.
    Mixed,
}

/// One address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// `bench://n`.
    Room(u32),
    /// Client n's key.
    Key(u32),
    /// Client n's member.
    Mid(u32),
    /// Everybody.
    All,
}

const BITS: u32 = 30;
/// Above the room's number: which of several pushers to one room this is; each keeps its own order.
const LANE: u32 = 24;
/// Pushers to one room at most.
pub const LANES: u32 = 8;

impl Address {
    /// As a stream of stamps: the kind in the two high bits.
    pub fn stream(self) -> u32 {
        match self {
            Self::Room(n) => n,
            Self::Key(n) => 1 << BITS | n,
            Self::Mid(n) => 2 << BITS | n,
            Self::All => 3 << BITS,
        }
    }

    /// Back from a stream.
    pub fn of(stream: u32) -> Self {
        let n = stream & ((1 << BITS) - 1);
        match stream >> BITS {
            0 => Self::Room(n & ((1 << LANE) - 1)),
            1 => Self::Key(n),
            2 => Self::Mid(n),
            _ => Self::All,
        }
    }

    /// Path and query of logic's HTTP API.
    pub fn path(self) -> String {
        match self {
            Self::Room(n) => format!("/goim/push/room?operation={OPERATION}&type={ROOM_TYPE}&room={n}"),
            Self::Key(n) => format!("/goim/push/keys?operation={OPERATION}&keys={}", key(n)),
            Self::Mid(n) => format!("/goim/push/mids?operation={OPERATION}&mids={}", mid(n)),
            Self::All => format!("/goim/push/all?operation={OPERATION}"),
        }
    }
}

/// The streams of several pushers to one room.
pub fn lanes(room: u32, count: u32) -> Vec<u32> {
    (0..count.min(LANES)).map(|lane| lane << LANE | room).collect()
}

/// Which of `workers` sends a stream: always the same one, and lanes each their own.
pub fn worker(stream: u32, workers: usize) -> usize {
    (stream as usize + (stream >> LANE) as usize) % workers
}

impl Kind {
    /// The streams that pushes go to, one after the other and again from the start.
    pub fn streams(self, connections: u32, rooms: u32) -> Vec<u32> {
        match self {
            Self::Room => (0..rooms).collect(),
            Self::Key => (0..connections).map(|n| Address::Key(n).stream()).collect(),
            Self::Mid => (0..connections).map(|n| Address::Mid(n).stream()).collect(),
            Self::All => vec![Address::All.stream()],
            Self::Mixed => {
                // One turn visits every key once, and rooms four times as often.
                let key = |turn: u32| Address::Key(turn % connections).stream();
                let room = |turn: u32, n: u32| (turn * 4 + n) % rooms;
                (0..connections).flat_map(|turn| (0..4).map(move |n| room(turn, n)).chain([key(turn)])).collect()
            }
        }
    }
}

/// The room of client n, as goim writes it.
pub fn room(n: u32) -> String {
    format!("{ROOM_TYPE}://{n}")
}

/// The key of client n.
pub fn key(n: u32) -> String {
    format!("bench-{n}")
}

fn mid(n: u32) -> u32 {
    n + 1
}

/// Client n: member n + 1, key `bench-n`, in room n modulo `rooms`; it must see whatever is addressed to it.
pub fn members(rooms: u32) -> Arc<dyn Fn(usize) -> Member + Send + Sync> {
    Arc::new(move |index| {
        let n = index as u32;
        let token = serde_json::json!({
            "mid": mid(n), "key": key(n), "room_id": room(n % rooms), "platform": "bench", "accepts": [OPERATION],
        });
        let mut streams = lanes(n % rooms, LANES);
        streams.extend([Address::Key(n), Address::Mid(n), Address::All].map(Address::stream));
        Member { token: token.to_string(), streams }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_an_address_and_back() {
        for address in [Address::Room(7), Address::Key(7), Address::Mid(0), Address::All] {
            assert_eq!(Address::of(address.stream()), address);
        }
        assert_eq!(Address::Key(3).path(), "/goim/push/keys?operation=1000&keys=bench-3");
        assert_eq!(Address::Mid(3).path(), "/goim/push/mids?operation=1000&mids=4");
    }

    #[test]
    fn lanes_are_one_room_and_different_workers() {
        let lanes = lanes(5, 4);
        assert!(lanes.iter().all(|stream| Address::of(*stream) == Address::Room(5)));
        let mut workers: Vec<_> = lanes.iter().map(|stream| worker(*stream, 4)).collect();
        workers.sort_unstable();
        assert_eq!(workers, [0, 1, 2, 3]);
    }

    #[test]
    fn one_push_in_five_of_a_mixed_load_goes_to_a_key() {
        let streams = Kind::Mixed.streams(10, 4);
        let keys = streams.iter().filter(|stream| matches!(Address::of(**stream), Address::Key(_))).count();
        assert_eq!((streams.len(), keys), (50, 10));
        assert_eq!(streams[..5], [0, 1, 2, 3, Address::Key(0).stream()]);
    }

    #[test]
    fn a_member_must_see_its_room_its_key_itself_and_all() {
        let member = members(3)(4);
        assert!(member.token.contains(r#""room_id":"bench://1""#), "{}", member.token);
        for address in [Address::Room(1), Address::Key(4), Address::Mid(4), Address::All] {
            assert!(member.streams.contains(&address.stream()), "{address:?}");
        }
    }
}
