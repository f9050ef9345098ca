//! The push record that logic writes to the queue and job reads, and the partition it goes to.
//!
//! goim's record (`api/logic/logic.proto`, `PushMsg`), so that Go and Rust processes share one topic.

use std::borrow::Cow;

use crate::logic::PushMsg;
use crate::logic::push_msg::Type;

/// goim's topic.
pub const TOPIC: &str = "goim-push-topic";
/// goim's consumer group for job.
pub const GROUP: &str = "goim-push-group-job";
/// The largest record, in bytes: sarama's limit, which goim's backends know.
pub const MAX_RECORD: usize = 1_000_000;

/// How the keys begin that comets push to themselves, to see that pushes arrive. They are nobody's, and nowhere else.
pub const PROBE: &str = "imcluster-probe-";

/// What a kick says whose key is only noted elsewhere by now: the connection stays until its client has moved, and knows
/// that no more pushes to its key are sent to it.
pub const MOVING: &str = "moving";

/// The key a record is partitioned by: the first key, the room, or the operation in decimal.
pub fn record_key(record: &PushMsg) -> Cow<'_, str> {
    match record.r#type() {
        Type::Push | Type::Kick => record.keys.first().map_or(Cow::Borrowed(""), |key| key.as_str().into()),
        Type::Room => record.room.as_str().into(),
        Type::Broadcast => record.operation.to_string().into(),
    }
}

/// The partition of a key: FNV-1a taken as a signed number, remainder by the count, without its sign.
/// This is sarama's hash partitioner and librdkafka's `fnv1a`.
///
/// # Panics
/// When there are no partitions.
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    let hash = key.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (i64::from(hash as i32) % i64::from(partitions)).unsigned_abs() as u32
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn keys_go_to_the_partitions_goim_puts_them_in() {
        for (key, expected) in [("test://1", 3), ("live://1000", 2), ("1000", 7), ("test_key", 8)] {
            assert_eq!(partition(key.as_bytes(), 9), expected, "{key}");
        }
    }

    #[test]
    fn records_are_goims_bytes() {
        let push = PushMsg {
            operation: 1000,
            server: "h1".into(),
            keys: vec!["k1".into(), "k2".into()],
            msg: "m1".into(),
            ..Default::default()
        };
        let room = PushMsg {
            r#type: Type::Room.into(),
            operation: 1000,
            room: "test://1".into(),
            msg: "m1".into(),
            ..Default::default()
        };
        let all = PushMsg {
            r#type: Type::Broadcast.into(),
            operation: 1000,
            speed: 64,
            msg: "m1".into(),
            ..Default::default()
        };
        for (record, key, bytes) in [
            (&push, "k1", "10e8072202683132026b3132026b323a026d31"),
            (&room, "test://1", "080110e8072a08746573743a2f2f313a026d31"),
            (&all, "1000", "080210e80718403a026d31"),
        ] {
            let hex: String = record.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, bytes);
            assert_eq!(record_key(record), key);
        }
    }
}
