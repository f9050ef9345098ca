//! Proves the whole path before this comet calls itself ready: a record addressed to a key that only this process
//! knows goes to logic, through the queue and job, and comes back here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::logic::{Logic, LogicError};

/// How long the echo may take before we are ready without it.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Time between two tries.
const AGAIN: Duration = Duration::from_secs(1);
/// The same once we are ready without it: a queue or a logic that comes later proves the path then.
const LATER: Duration = Duration::from_secs(10);

/// What is known of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Nothing yet.
    Waiting,
    /// A push came all the way.
    Proven,
    /// None came in time, or logic cannot send one.
    Unproven,
}

impl Flow {
    /// As `/status` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Proven => "proven",
            Self::Unproven => "unproven",
        }
    }
}

/// The key to watch for, and whether it came. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Probe {
    key: Arc<str>,
    flow: Arc<watch::Sender<Flow>>,
}

impl Probe {
    /// A probe for this start of this server.
    pub fn new(incarnation: u64) -> Self {
        let key = format!("{}{incarnation:016x}", proto::push::PROBE).into();
        Self { key, flow: Arc::new(watch::Sender::new(Flow::Waiting)) }
    }

    /// Whether a pushed key is ours.
    pub fn is(&self, key: &str) -> bool {
        *self.key == *key
    }

    /// It came.
    pub fn came_back(&self) {
        self.flow.send_replace(Flow::Proven);
    }

    /// What is known now.
    pub fn flow(&self) -> Flow {
        *self.flow.borrow()
    }

    /// Waits until it came, or until waiting longer is no use. Cancel safe.
    pub async fn settled(&self) -> Flow {
        let mut flow = self.flow.subscribe();
        // The sender lives in this probe, so there is always somebody to wait for.
        flow.wait_for(|flow| *flow != Flow::Waiting).await.map_or(Flow::Unproven, |flow| *flow)
    }

    /// Sends until it comes back. After a minute, or when logic cannot send it (a Go logic), the path is unproven; it is
    /// tried on all the same.
    pub async fn run(&self, logic: &dyn Logic) {
        let mut flow = self.flow.subscribe();
        let tries = async {
            let give_up = Instant::now() + GIVE_UP;
            loop {
                match logic.probe(&self.key).await {
                    Err(LogicError::Refused(why) | LogicError::Expired(why)) => {
                        self.give_up(&format!("logic cannot send it: {why}"))
                    }
                    Err(LogicError::Unavailable(why)) => tracing::debug!(why, "probe not sent"),
                    Ok(()) => {}
                }
                let pause = if self.flow() == Flow::Waiting { AGAIN } else { LATER };
                tokio::time::sleep(pause).await;
                if Instant::now() >= give_up {
                    self.give_up("none came back in a minute");
                }
            }
        };
        tokio::select! {
            _ = flow.wait_for(|flow| *flow == Flow::Proven) => {}
            () = tries => {}
        }
    }

    /// Ready without it; said once.
    fn give_up(&self, why: &str) {
        let is_news = self.flow.send_if_modified(|flow| {
            let was_waiting = *flow == Flow::Waiting;
            if was_waiting {
                *flow = Flow::Unproven;
            }
            was_waiting
        });
        if is_news {
            tracing::warn!(why, "the path of a push is not proven, ready without");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::memory::MemoryLogic;

    /// What is known after so long of trying.
    async fn after(probe: &Probe, logic: &MemoryLogic, time: Duration) -> Flow {
        drop(tokio::time::timeout(time, probe.run(logic)).await);
        probe.flow()
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_does_not_come_back_is_given_up_after_a_minute_and_still_proves_the_path_later() {
        let logic = MemoryLogic::default();
        let probe = Probe::new(7);
        assert_eq!(after(&probe, &logic, Duration::from_secs(59)).await, Flow::Waiting);
        let sent = logic.said().len();
        assert!(sent >= 59, "{sent}");
        assert_eq!(after(&probe, &logic, Duration::from_secs(62)).await, Flow::Unproven);
        assert_eq!(probe.settled().await, Flow::Unproven);
        let sent = logic.said().len();
        assert_eq!(after(&probe, &logic, Duration::from_secs(35)).await, Flow::Unproven);
        assert_eq!(logic.said().len() - sent, 4, "it goes on, less often");
        assert!(probe.is("imcluster-probe-0000000000000007"));
        probe.came_back();
        assert_eq!(after(&probe, &logic, Duration::from_secs(600)).await, Flow::Proven);
    }

    #[tokio::test(start_paused = true)]
    async fn a_logic_that_is_away_is_asked_again_and_one_that_cannot_send_it_is_not_waited_for() {
        let logic = MemoryLogic::default();
        logic.set_down(true);
        let probe = Probe::new(7);
        assert_eq!(after(&probe, &logic, Duration::from_secs(5)).await, Flow::Waiting);
        logic.set_probes(false);
        logic.set_down(false);
        assert_eq!(after(&probe, &logic, Duration::from_millis(1)).await, Flow::Unproven);
    }
}
