//! The queue in memory as a source: all partitions are ours, in generation 1.

use std::collections::BTreeSet;

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::log::MemoryLog;
use tokio::sync::Notify;

use super::{Assignment, Event, Source};

/// At most so many records of a partition at once.
const BATCH: usize = 256;

/// A consumer of the queue in memory.
#[derive(Debug)]
pub struct MemorySource {
    log: MemoryLog,
    /// The next offset to hand out, per partition.
    next: Vec<u64>,
    started: u8,
    paused: Mutex<BTreeSet<u32>>,
    /// To be started anew.
    again: Mutex<BTreeSet<u32>>,
    changed: Notify,
}

impl MemorySource {
    /// Starts where the log was committed.
    pub fn new(log: MemoryLog) -> Self {
        let next = (0..log.partitions()).map(|partition| log.bounds(partition).0).collect();
        Self { log, next, started: 0, paused: Mutex::default(), again: Mutex::default(), changed: Notify::new() }
    }
}

#[async_trait]
impl Source for MemorySource {
    fn name(&self) -> &'static str {
        "queue"
    }

    async fn next(&mut self) -> Event {
        self.started = self.started.saturating_add(1);
        match self.started {
            1 => return Event::Up,
            2 => {
                let ours = self.next.iter().zip(0..).map(|(start, partition)| Assignment {
                    partition,
                    generation: 1,
                    start: *start,
                    out_of_range: false,
                    takeover: false,
                });
                return Event::Assigned(ours.collect());
            }
            _ => {}
        }
        loop {
            let again = self.again.lock().pop_first();
            if let Some(partition) = again {
                let start = self.log.bounds(partition).0;
                self.next[partition as usize] = start;
                let assignment = Assignment { partition, generation: 1, start, out_of_range: false, takeover: true };
                return Event::Assigned(vec![assignment]);
            }
            let paused = self.paused.lock().clone();
            // A paused partition is read from beyond its end.
            let from: Vec<u64> = (0..)
                .zip(&self.next)
                .map(|(partition, next)| if paused.contains(&partition) { u64::MAX } else { *next })
                .collect();
            tokio::select! {
                records = self.log.read(&from, BATCH) => {
                    for record in &records {
                        self.next[record.partition as usize] = record.offset + 1;
                    }
                    return Event::Records(records);
                }
                () = self.changed.notified() => {}
            }
        }
    }

    fn commit(&self, offsets: &[(u32, u64)]) {
        offsets.iter().for_each(|(partition, offset)| self.log.commit(*partition, *offset));
    }

    fn must_commit_again(&self) -> bool {
        false
    }

    fn pause(&self, partition: u32) {
        self.paused.lock().insert(partition);
        self.changed.notify_one();
    }

    fn resume(&self, partition: u32) {
        self.paused.lock().remove(&partition);
        self.changed.notify_one();
    }

    fn take_over(&self, partition: u32) {
        self.again.lock().insert(partition);
        self.changed.notify_one();
    }

    fn epoch(&self) -> u32 {
        self.log.epoch()
    }

    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn end(&self, partition: u32) -> Option<u64> {
        Some(self.log.bounds(partition).1)
    }

    async fn close(self: Box<Self>, offsets: Vec<(u32, u64)>) -> anyhow::Result<()> {
        self.commit(&offsets);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(log: &MemoryLog, value: &'static str) -> (u32, u64) {
        log.append("k".into(), value.into(), vec![]).unwrap()
    }

    async fn started(log: &MemoryLog) -> MemorySource {
        let mut source = MemorySource::new(log.clone());
        assert!(matches!(source.next().await, Event::Up));
        assert!(matches!(source.next().await, Event::Assigned(_)));
        source
    }

    async fn values(source: &mut MemorySource) -> Vec<bytes::Bytes> {
        match source.next().await {
            Event::Records(records) => records.into_iter().map(|record| record.value).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_consumer_starts_where_the_last_one_committed() {
        let log = MemoryLog::new(1, 1000);
        key(&log, "a");
        key(&log, "b");
        let mut first = started(&log).await;
        assert_eq!(values(&mut first).await, ["a", "b"]);
        first.commit(&[(0, 1)]);
        drop(first);
        assert_eq!(values(&mut started(&log).await).await, ["b"]);
    }

    #[tokio::test]
    async fn a_paused_partition_rests_until_it_is_resumed() {
        let log = MemoryLog::new(1, 1000);
        let mut source = started(&log).await;
        source.pause(0);
        key(&log, "a");
        let waits = tokio::time::timeout(std::time::Duration::from_millis(50), source.next()).await;
        assert!(waits.is_err());
        source.resume(0);
        assert_eq!(values(&mut source).await, ["a"]);
    }
}
