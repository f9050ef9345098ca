//! What every push queue must do, as one suite: run against memory in this crate and against real Kafka in `e2e`.
//! The topic must have nine partitions and be nobody else's.
#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::push::MAX_RECORD;

use super::{NewRecord, OVERHEAD, PushQueue, QueueError};

/// Runs every check.
///
/// # Panics
/// When a check fails.
pub async fn run(queue: Arc<dyn PushQueue>) {
    keys_go_to_the_partitions_goim_puts_them_in(&*queue).await;
    records_of_one_key_are_kept_in_the_order_they_were_sent(&*queue).await;
    the_largest_record_is_taken_and_one_byte_more_is_refused(&*queue).await;
    queue.flush(Duration::from_secs(10)).await;
}

fn made(key: &str, value: Bytes) -> Result<NewRecord, QueueError> {
    NewRecord::new(Bytes::copy_from_slice(key.as_bytes()), value, None)
}

fn record(key: &str, value: Bytes) -> NewRecord {
    made(key, value).unwrap()
}

async fn keys_go_to_the_partitions_goim_puts_them_in(queue: &dyn PushQueue) {
    assert_eq!(queue.partitions(), 9);
    for (key, partition) in [("test://1", 3), ("live://1000", 2), ("1000", 7), ("test_key", 8)] {
        assert_eq!(queue.send(record(key, Bytes::from_static(b"v"))).await.unwrap().0, partition, "{key}");
    }
}

async fn records_of_one_key_are_kept_in_the_order_they_were_sent(queue: &dyn PushQueue) {
    let sent = (0..200).map(|_| queue.send(record("ordered", Bytes::from_static(b"v"))));
    let places = futures::future::try_join_all(sent).await.unwrap();
    let (partition, first) = places[0];
    let expected: Vec<_> = (first..first + 200).map(|offset| (partition, offset)).collect();
    assert_eq!(places, expected);
}

async fn the_largest_record_is_taken_and_one_byte_more_is_refused(queue: &dyn PushQueue) {
    let largest = MAX_RECORD - OVERHEAD - "large".len();
    queue.send(record("large", vec![b'x'; largest].into())).await.unwrap();
    assert_eq!(made("large", vec![b'x'; largest + 1].into()), Err(QueueError::TooLarge));
}
