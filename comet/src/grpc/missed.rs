//! Tells clients that this comet was not sent something, because it did not answer for too long: nobody knows whom it
//! was for, so everybody is told who was here. Clients with capabilities get an op 23, the others are closed, at the
//! rate at which a drain closes them.

use std::sync::Arc;
use std::time::Duration;

use proto::envelope::{Gap, GapRange};
use tokio::sync::oneshot;

use crate::close::Close;
use crate::drain;
use crate::shard::Command;
use crate::shared::Shared;

/// How often clients are closed.
const STEP: Duration = Duration::from_millis(20);

/// Tells whoever is here now of these ranges.
pub(super) fn tell(shared: &Arc<Shared>, ranges: Vec<GapRange>) {
    let dropped = ranges.iter().map(|range| range.to - range.from + 1).sum();
    tracing::warn!(records = dropped, "this comet was let go and has missed records, its clients are told");
    shared.metrics.holes.inc();
    let gap = Arc::new(Gap { reason: "missed".into(), dropped, ranges });
    // Every shard hears of it before anything that is sent after it.
    let others: Vec<_> = shared
        .shards
        .iter()
        .map(|shard| {
            let (others, answer) = oneshot::channel();
            shard.send(Command::Missed(gap.clone(), others));
            answer
        })
        .collect();
    let shared = shared.clone();
    tokio::spawn(async move {
        let mut left = Vec::new();
        for (index, others) in others.into_iter().enumerate() {
            // A shard that is gone has no clients.
            left.extend(others.await.unwrap_or_default().into_iter().map(|entry| (index, entry)));
        }
        let at_once = (f64::from(shared.settings.close_rate) * STEP.as_secs_f64()).ceil() as usize;
        while !left.is_empty() {
            let now = left.split_off(left.len().saturating_sub(at_once.max(1)));
            drain::close(&shared, now, Close::Missed);
            tokio::time::sleep(STEP).await;
        }
    });
}
