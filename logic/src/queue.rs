//! Where push records go: acknowledged means kept.

use async_trait::async_trait;
use bytes::Bytes;
use proto::push::MAX_RECORD;

pub mod kafka;
pub mod memory;
#[doc(hidden)]
pub mod suite;

/// What sarama adds to key and value when it measures a record against its limit; goim's backends know the sum.
const OVERHEAD: usize = 26;

/// One record to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// What it is partitioned by ([`proto::push::record_key`]).
    pub key: Bytes,
    /// An encoded `PushMsg`.
    pub value: Bytes,
    /// W3C trace context, for a traced push.
    pub traceparent: Option<String>,
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Larger than the queue takes; trying again is no use. goim's text.
    #[error("kafka server: Message was too large, server rejected it to avoid allocation error.")]
    TooLarge,
    /// Away or full: try again later. The record may have been kept all the same.
    #[error("push queue: {0}")]
    Unavailable(String),
}

impl NewRecord {
    /// Refuses what is larger than goim's producer takes, whatever the queue behind would say.
    fn check(&self) -> Result<(), QueueError> {
        let size = self.key.len() + self.value.len() + OVERHEAD;
        if size > MAX_RECORD { Err(QueueError::TooLarge) } else { Ok(()) }
    }
}

/// The queue of push records. Kafka, or memory.
#[async_trait]
pub trait PushQueue: Send + Sync + 'static {
    /// How many partitions there are, so that a push can be split by them; 0 before the queue has said it. A push that
    /// would have to be split has to wait for that: split by another number, its keys would not be in order.
    fn partitions(&self) -> u32;
    /// Keeps the record and returns its partition and offset.
    async fn send(&self, record: NewRecord) -> Result<(u32, u64), QueueError>;
    /// Waits until everything handed over was answered, or this long.
    async fn flush(&self, within: std::time::Duration);
}
