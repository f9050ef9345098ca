//! Where records come from: Kafka as one member of a consumer group, or the queue in memory.
//!
//! A source hands out records in order per partition and says which partitions are ours. It commits what it is told
//! and nothing else.

pub mod kafka;
pub mod memory;

use async_trait::async_trait;
use proto::log::Record;
use tokio::sync::oneshot;

/// What a source says next.
#[derive(Debug)]
pub enum Event {
    /// The queue answers.
    Up,
    /// The queue does not answer, and why; the source keeps trying.
    Down(String),
    /// These partitions are ours from now on. A partition that was ours already starts anew.
    Assigned(Vec<Assignment>),
    /// These are not ours any more.
    Revoked(Revocation),
    /// Records of our partitions.
    Records(Vec<Record>),
}

/// A partition that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its number.
    pub partition: u32,
    /// The group's generation in which we got it.
    pub generation: i32,
    /// The first record that comes.
    pub start: u64,
    /// The committed offset is gone from the queue: `start` is the oldest there is.
    pub out_of_range: bool,
    /// The queue says that it is ours, however late an owner a comet has heard of.
    pub takeover: bool,
}

/// Partitions that are to be given up. They stay ours until `done` is answered or dropped.
#[derive(Debug)]
pub struct Revocation {
    /// Their numbers.
    pub partitions: Vec<u32>,
    /// They are somebody else's already: nothing may be committed.
    pub lost: bool,
    /// Takes what to commit for them: partition and offset.
    pub done: oneshot::Sender<Vec<(u32, u64)>>,
}

/// A queue of push records as one consumer of a group sees it.
#[async_trait]
pub trait Source: Send {
    /// What dependency this is, for readiness: one word.
    fn name(&self) -> &'static str;
    /// Waits for the next event. Cancel safe.
    async fn next(&mut self) -> Event;
    /// Commits the next offset to be read of each partition, in the background; a failure is made good by a later
    /// commit, which [`Self::must_commit_again`] asks for.
    fn commit(&self, offsets: &[(u32, u64)]);
    /// Whether a commit failed since this was last asked.
    fn must_commit_again(&self) -> bool;
    /// Stops a partition's records until [`Self::resume`], also when it is revoked and assigned again meanwhile; some
    /// may still come.
    fn pause(&self, partition: u32);
    /// Lets them come again.
    fn resume(&self, partition: u32);
    /// Starts a partition anew that comets take for a later owner's, if the queue still says that it is ours: comets are to
    /// forget that owner.
    fn take_over(&self, partition: u32);
    /// The topic's incarnation; 0 = unknown, so that ids are not to be filtered by.
    fn epoch(&self) -> u32;
    /// How many partitions the topic has; 0 = unknown.
    fn partitions(&self) -> u32;
    /// The offset after the newest record, as far as known.
    fn end(&self, partition: u32) -> Option<u64>;
    /// Commits, waits for the answer and leaves the group.
    async fn close(self: Box<Self>, offsets: Vec<(u32, u64)>) -> anyhow::Result<()>;
}
