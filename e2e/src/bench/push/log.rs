//! When each push of a schedule was sent and answered, kept while it is offered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// One push, by [`crate::os::monotonic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// What it was addressed to.
    pub stream: u32,
    /// Its number in the stream.
    pub number: u32,
    /// When the schedule wanted it sent.
    pub due: Duration,
    /// When it was handed to its connection.
    pub sent: Duration,
    /// When it was answered, or given up.
    pub answered: Duration,
    /// Whether the answer was a yes.
    pub accepted: bool,
    /// Of how many records it became: of none when nobody was known whom it names.
    pub records: u64,
}

/// Every push so far, and the means to end the schedule before its time. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    pushes: Mutex<Vec<Pushed>>,
    ended: AtomicBool,
}

impl Log {
    /// Adds one.
    pub(super) fn note(&self, push: Pushed) {
        self.0.pushes.lock().push(push);
    }

    /// Hands over what was noted and forgets it.
    pub fn take(&self) -> Vec<Pushed> {
        std::mem::take(&mut self.0.pushes.lock())
    }

    /// Nothing more is sent; what was sent is still answered.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst)
    }
}
