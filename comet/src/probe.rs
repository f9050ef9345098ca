//! Proves the whole path before this comet calls itself ready: a record addressed to a key that only this process
//! knows goes to logic, through the queue and job, and comes back here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::logic::{Logic, LogicError};

/// How long the echo may take before we are ready without it.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Time between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// The key to watch for, and whether it came. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Probe {
    key: Arc<str>,
    seen: Arc<watch::Sender<bool>>,
}

impl Probe {
    /// A probe for this start of this server.
    pub fn new(incarnation: u64) -> Self {
        Self { key: format!("imcluster-probe-{incarnation:016x}").into(), seen: Arc::new(watch::Sender::new(false)) }
    }

    /// Whether a pushed key is ours.
    pub fn is(&self, key: &str) -> bool {
        *self.key == *key
    }

    /// It came.
    pub fn came_back(&self) {
        self.seen.send_replace(true);
    }

    /// Whether it has come.
    pub fn is_proven(&self) -> bool {
        *self.seen.borrow()
    }

    /// Sends until it comes back; gives up after a minute, or when logic cannot send it (a Go logic).
    /// Returns whether the path is proven.
    pub async fn run(&self, logic: &dyn Logic) -> bool {
        let mut seen = self.seen.subscribe();
        let tries = async {
            loop {
                match logic.probe(&self.key).await {
                    Err(LogicError::Refused(why)) => {
                        tracing::info!(why, "logic cannot probe, ready without it");
                        return;
                    }
                    Err(LogicError::Unavailable(why)) => tracing::debug!(why, "probe not sent"),
                    Ok(()) => {}
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            // The sender lives in this probe, so the wait ends only with the echo.
            _ = seen.wait_for(|seen| *seen) => {}
            () = tries => {}
            () = tokio::time::sleep(GIVE_UP) => tracing::warn!("no probe came back in a minute, ready without it"),
        }
        self.is_proven()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::memory::MemoryLogic;

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_comes_back_proves_the_path_and_one_that_does_not_is_given_up() {
        let logic = MemoryLogic::default();
        let probe = Probe::new(7);
        assert!(!probe.run(&logic).await);
        assert!(probe.is("imcluster-probe-0000000000000007"));
        probe.came_back();
        assert!(probe.run(&logic).await);
    }
}
