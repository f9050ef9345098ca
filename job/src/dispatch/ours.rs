//! One partition while it is ours: what of it waits, and what may be committed.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::log::Record;

use super::copies::Copies;
use crate::fleet::Fleet;
use crate::push::Partition;

/// One partition that is ours.
pub(super) struct Ours {
    pub(super) partition: Arc<Partition>,
    /// Records beyond the ledger's window; while there are any the partition is paused.
    pub(super) held: VecDeque<Record>,
    pub(super) committed: u64,
    pub(super) copies: Copies,
}

impl Ours {
    /// Whether everything that was handed to comets was answered, and they know it.
    pub(super) fn is_done(&self, fleet: &Fleet) -> bool {
        let settled = {
            let ledger = self.partition.ledger.lock();
            ledger.is_settled().then(|| ledger.committed())
        };
        let is_known = |floor| fleet.knows(self.partition.number).is_none_or(|known| known >= floor);
        self.partition.is_fenced() || settled.is_some_and(is_known)
    }

    /// What may be committed: what every comet has answered and was told of. Who commits what a comet does not know of
    /// cannot tell later whether that comet was let go.
    pub(super) fn to_commit(&self, fleet: &Fleet) -> Option<(u32, u64)> {
        let floor = self.partition.ledger.lock().committed();
        let known = fleet.knows(self.partition.number).unwrap_or(floor);
        // It was committed already when a comet joins that knows less.
        let offset = floor.min(known).max(self.committed);
        (!self.partition.is_fenced()).then_some((self.partition.number, offset))
    }

    /// As [`Self::to_commit`], when it is news or all is to be committed once more. A commit never goes back.
    pub(super) fn to_commit_now(&self, fleet: &Fleet, again: bool) -> Option<(u32, u64)> {
        self.to_commit(fleet).filter(|(_, offset)| again || *offset != self.committed)
    }
}
