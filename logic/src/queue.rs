//! Where push records go: acknowledged means kept.

use async_trait::async_trait;
use bytes::Bytes;
use proto::push::MAX_RECORD;

pub mod kafka;
pub mod memory;
#[doc(hidden)]
pub mod suite;

/// What sarama adds to key and value when it measures a record against its limit; goim's backends know the sum.
pub(crate) const OVERHEAD: usize = 26;

/// One record to be kept, no larger than any queue takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    key: Bytes,
    value: Bytes,
    traceparent: Option<String>,
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
    /// A record of `value`, an encoded `PushMsg`, partitioned by `key` ([`proto::push::record_key`]); `traceparent` is
    /// the W3C trace context of a traced push. The one place where its size is looked at: whoever makes all records of
    /// a push before sending any stores all of it or nothing.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`] beyond what goim's producer takes, whatever the queue behind would say.
    pub fn new(key: Bytes, value: Bytes, traceparent: Option<String>) -> Result<Self, QueueError> {
        match key.len() + value.len() + OVERHEAD {
            ..=MAX_RECORD => Ok(Self { key, value, traceparent }),
            _ => Err(QueueError::TooLarge),
        }
    }

    /// What it is partitioned by.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The encoded `PushMsg`.
    pub fn value(&self) -> &Bytes {
        &self.value
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
