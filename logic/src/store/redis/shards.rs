//! A server's counts as goim keeps them: 64 shards by CityHash32 of the room, each a line of JSON.
//!
//! Shape: `{"server":"<id>","room_count":{"<room>":<int32>,…},"updated":<unix seconds>}`, compact, rooms sorted, with
//! `<`, `>`, `&`, U+2028 and U+2029 escaped as Go's `encoding/json` does. Source: goim `internal/logic/dao/redis.go`.

use std::collections::{BTreeMap, HashMap};

use proto::{RoomId, ServerId, id};
use serde::{Deserialize, Serialize};

use crate::store::ServerOnline;

/// How many shards there are.
pub const COUNT: u32 = 64;

#[derive(Serialize)]
struct Written<'a> {
    server: &'a str,
    room_count: BTreeMap<&'a str, i32>,
    updated: i64,
}

#[derive(Deserialize)]
struct Read {
    // A Go logic writes null for a map that is nil.
    #[serde(default)]
    room_count: Option<HashMap<RoomId, i32>>,
    #[serde(default)]
    updated: i64,
}

/// The shards that have rooms, as field and JSON, and the fields of those that have none.
/// goim leaves an empty shard as it was, and with it the last count of the rooms that were there (its D19).
pub fn split(server: &ServerId, rooms: &BTreeMap<RoomId, i32>, updated: i64) -> (Vec<(String, String)>, Vec<String>) {
    let mut shards: BTreeMap<u32, BTreeMap<&str, i32>> = BTreeMap::new();
    for (room, count) in rooms {
        let shard = id::city32(room.as_str().as_bytes()) % COUNT;
        shards.entry(shard).or_default().insert(room.as_str(), *count);
    }
    let empty = (0..COUNT).filter(|shard| !shards.contains_key(shard)).map(|shard| shard.to_string()).collect();
    let full = shards.into_iter().map(|(shard, room_count)| {
        let written = Written { server: server.as_str(), room_count, updated };
        let json = serde_json::to_string(&written).expect("text and numbers are always JSON");
        (shard.to_string(), as_go_escapes(json))
    });
    (full.collect(), empty)
}

/// Merges shards; the newest `updated` counts.
///
/// # Errors
/// When one of them is not such JSON.
pub fn join<'a>(shards: impl Iterator<Item = &'a str>) -> Result<ServerOnline, String> {
    let mut online = ServerOnline::default();
    for shard in shards {
        let read: Read = serde_json::from_str(shard).map_err(|error| format!("a shard of counts: {error}"))?;
        online.rooms.extend(read.room_count.unwrap_or_default());
        online.updated = online.updated.max(read.updated);
    }
    Ok(online)
}

/// These characters occur only inside strings, so the text can be taken as a whole.
fn as_go_escapes(json: String) -> String {
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(rooms: &[(&str, i32)]) -> BTreeMap<RoomId, i32> {
        rooms.iter().map(|(room, count)| ((*room).into(), *count)).collect()
    }

    #[test]
    fn rooms_are_in_the_shards_goim_puts_them_in() {
        let vectors = [
            ("", "58"),
            ("a", "13"),
            ("live", "53"),
            ("test://1", "28"),
            ("live://1000", "43"),
            ("test://test_room", "59"),
            ("live://1234567890123456789012", "53"),
        ];
        for (room, shard) in vectors {
            let (full, empty) = split(&"h1".into(), &rooms(&[(room, 1)]), 0);
            assert_eq!(full[0].0, shard, "{room}");
            assert_eq!(empty.len(), 63);
        }
    }

    #[test]
    fn a_shard_is_goims_json_to_the_byte() {
        let (full, _) =
            split(&"h1".into(), &rooms(&[("live://1234567890123456789012", 5), ("live", 2)]), 1_700_000_000);
        let json = r#"{"server":"h1","room_count":{"live":2,"live://1234567890123456789012":5},"updated":1700000000}"#;
        assert_eq!(full, [("53".to_owned(), json.to_owned())]);
        let (full, _) = split(&"h1".into(), &rooms(&[("<a>&\"\u{e9}", 1)]), 7);
        let json = "{\"server\":\"h1\",\"room_count\":{\"\\u003ca\\u003e\\u0026\\\"\u{e9}\":1},\"updated\":7}";
        assert_eq!(full[0].1, json);
    }

    #[test]
    fn the_newest_update_of_all_shards_counts() {
        let shards = [
            r#"{"server":"h1","room_count":{"a":1},"updated":5}"#,
            r#"{"server":"h1","room_count":{"b":2},"updated":7}"#,
            r#"{"server":"h1","room_count":null,"updated":6}"#,
        ];
        let online = join(shards.into_iter()).unwrap();
        assert_eq!(online.updated, 7);
        assert_eq!(online.rooms.len(), 2);
        assert!(join(["nonsense"].into_iter()).is_err());
    }
}
