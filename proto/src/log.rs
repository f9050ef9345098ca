//! The queue in memory: partitions, offsets and a committed position, as a Kafka topic has them, for one process.
//!
//! Bounded in bytes: what job has not committed stays, and when that reaches the limit an append is refused, as a
//! broker that is away refuses it. Nothing here outlives the process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::push;

/// One record, from this log or from Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Partition of the topic.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
    /// What it was partitioned by.
    pub key: Bytes,
    /// An encoded [`crate::logic::PushMsg`].
    pub value: Bytes,
    /// Such as `traceparent`.
    pub headers: Vec<(String, Bytes)>,
    /// Unix milliseconds of the append, 0 when the queue does not know.
    pub timestamp_ms: u64,
}

/// The log holds as many bytes as it may; commit, or try later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue in memory is full")]
pub struct Full;

/// A partitioned log in memory; cheap to clone, all clones are the same log.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    epoch: u32,
    limit: usize,
    partitions: Vec<Mutex<Partition>>,
    appended: Notify,
}

#[derive(Debug, Default)]
struct Partition {
    start: u64,
    records: VecDeque<Record>,
    bytes: usize,
}

impl MemoryLog {
    /// A log of so many partitions, each bounded to so many bytes of keys and values.
    ///
    /// # Panics
    /// When there are no partitions.
    pub fn new(partitions: u32, bytes_per_partition: usize) -> Self {
        assert!(partitions > 0, "a log has at least one partition");
        let shared = Shared {
            epoch: rand::random_range(1..=u32::MAX),
            limit: bytes_per_partition,
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            appended: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Drawn anew for every log, so that ids of an earlier process are not taken for repeats.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        self.shared.partitions.len() as u32
    }

    /// Appends to the partition of the key and returns partition and offset.
    ///
    /// # Errors
    /// [`Full`] while the partition holds its limit.
    pub fn append(&self, key: Bytes, value: Bytes, headers: Vec<(String, Bytes)>) -> Result<(u32, u64), Full> {
        let partition = push::partition(&key, self.partitions());
        let mut part = self.shared.partitions[partition as usize].lock();
        let size = key.len() + value.len();
        if part.bytes + size > self.shared.limit {
            return Err(Full);
        }
        let offset = part.start + part.records.len() as u64;
        part.bytes += size;
        part.records.push_back(Record { partition, offset, key, value, headers, timestamp_ms: now_ms() });
        drop(part);
        self.shared.appended.notify_waiters();
        Ok((partition, offset))
    }

    /// Waits for records at or after `from` (one offset per partition), at most `max` of each partition.
    /// Cancel safe: nothing is consumed by reading.
    pub async fn read(&self, from: &[u64], max: usize) -> Vec<Record> {
        loop {
            let appended = self.shared.appended.notified();
            tokio::pin!(appended);
            appended.as_mut().enable();
            let found: Vec<Record> =
                self.shared.partitions.iter().zip(from).flat_map(|(part, from)| part.lock().from(*from, max)).collect();
            if !found.is_empty() {
                return found;
            }
            appended.await;
        }
    }

    /// Forgets everything before `offset`.
    pub fn commit(&self, partition: u32, offset: u64) {
        let Some(part) = self.shared.partitions.get(partition as usize) else {
            return;
        };
        let mut part = part.lock();
        while part.start < offset
            && let Some(record) = part.records.pop_front()
        {
            part.start += 1;
            part.bytes -= record.key.len() + record.value.len();
        }
    }

    /// The first offset not committed and the next to be appended.
    pub fn bounds(&self, partition: u32) -> (u64, u64) {
        let part = self.shared.partitions[partition as usize].lock();
        (part.start, part.start + part.records.len() as u64)
    }
}

impl Partition {
    fn from(&self, offset: u64, max: usize) -> Vec<Record> {
        let skip = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.records.iter().skip(skip).take(max).cloned().collect()
    }
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_are_read_in_order_from_any_offset_until_committed() {
        let log = MemoryLog::new(1, 1000);
        for value in ["a", "b", "c"] {
            log.append("k".into(), value.into(), vec![]).unwrap();
        }
        let values = |records: Vec<Record>| records.into_iter().map(|record| record.value).collect::<Vec<_>>();
        assert_eq!(values(log.read(&[1], 10).await), ["b", "c"]);
        log.commit(0, 2);
        assert_eq!(log.bounds(0), (2, 3));
        assert_eq!(values(log.read(&[0], 10).await), ["c"]);
    }

    #[tokio::test]
    async fn a_full_partition_refuses_until_something_is_committed() {
        let log = MemoryLog::new(1, 4);
        log.append("k".into(), "abc".into(), vec![]).unwrap();
        assert_eq!(log.append("k".into(), "d".into(), vec![]), Err(Full));
        log.commit(0, 1);
        assert_eq!(log.append("k".into(), "d".into(), vec![]), Ok((0, 1)));
    }

    #[tokio::test]
    async fn a_reader_wakes_when_something_is_appended() {
        let log = MemoryLog::new(9, 1000);
        let reader = tokio::spawn({
            let log = log.clone();
            async move { log.read(&[0; 9], 1).await }
        });
        tokio::task::yield_now().await;
        log.append("live://1000".into(), "x".into(), vec![]).unwrap();
        assert_eq!(reader.await.unwrap()[0].partition, 2);
    }
}
