//! When clients may come in: once jobs have vouched for every partition here. Whatever is pushed from then on is sent to
//! this comet, or it finds out that it was not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Whether that is so. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<watch::Sender<bool>>);

impl Claims {
    /// It is; or there is a job of goim's, which claims and vouches for nothing.
    pub fn settle(&self) {
        self.0.send_if_modified(|settled| !std::mem::replace(settled, true));
    }

    /// Whether it is.
    pub fn are_settled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is, but no longer than this: clients come in all the same then. Cancel safe.
    pub async fn wait(&self, at_most: Duration) {
        let mut settled = self.0.subscribe();
        let waited = tokio::time::timeout(at_most, settled.wait_for(|settled| *settled)).await;
        if waited.is_err() && !at_most.is_zero() {
            tracing::warn!(waited = ?at_most, "not every partition was claimed here, clients are let in without");
        }
    }
}
