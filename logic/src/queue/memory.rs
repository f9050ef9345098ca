//! The queue in memory, for one process: acknowledged means it is in the log that job reads here.

use std::time::Duration;

use async_trait::async_trait;
use proto::log::MemoryLog;

use super::{NewRecord, PushQueue, QueueError};

/// Writes to a log in memory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemoryQueue {
    log: MemoryLog,
}

impl MemoryQueue {
    /// Writes to this log.
    pub fn new(log: MemoryLog) -> Self {
        Self { log }
    }
}

#[async_trait]
impl PushQueue for MemoryQueue {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    async fn send(&self, record: NewRecord) -> Result<(u32, u64), QueueError> {
        let headers =
            record.traceparent.map(|trace| (runtime::trace::HEADER.to_owned(), trace.into())).into_iter().collect();
        self.log.append(record.key, record.value, headers).map_err(|full| QueueError::Unavailable(full.to_string()))
    }

    async fn flush(&self, _within: Duration) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn the_memory_queue_passes_the_suite() {
        let log = MemoryLog::new(9, 16 << 20);
        super::super::suite::run(Arc::new(MemoryQueue::new(log))).await;
    }

    #[tokio::test]
    async fn a_full_log_is_a_queue_that_is_away() {
        let queue = MemoryQueue::new(MemoryLog::new(1, 4));
        let record = NewRecord::new("key".into(), "value".into(), None).unwrap();
        let refused = queue.send(record).await.unwrap_err();
        assert_eq!(refused, QueueError::Unavailable("the queue in memory is full".to_owned()));
    }

    #[tokio::test]
    async fn the_trace_travels_in_the_records_header() {
        let log = MemoryLog::new(1, 100);
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
        let record = NewRecord::new("k".into(), "v".into(), Some(trace.clone())).unwrap();
        MemoryQueue::new(log.clone()).send(record).await.unwrap();
        let headers = log.read(&[0], 1).await.remove(0).headers;
        assert_eq!(headers, [("traceparent".to_owned(), trace.into())]);
    }
}
