//! The end of a comet that was told to stop: nobody is cut who can be told, nobody else is flooded by who comes back.

use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::close::Close;
use crate::shard::Command;
use crate::shared::Shared;
use crate::wheel::Entry;

/// How often clients are closed while draining.
const STEP: Duration = Duration::from_millis(20);

/// How long the last clients have to leave, and logic to hear of it.
const LAST: Duration = Duration::from_secs(5);

/// Closes every client, in random order, over as long as the rate asks for; pushes still arrive meanwhile.
pub async fn clients(shared: &Arc<Shared>) {
    let settings = &shared.settings;
    let mut left = list(shared).await;
    let over = window(left.len(), settings.close_rate, settings.drain_min, settings.drain_max);
    tracing::info!(clients = left.len(), seconds = over.as_secs_f64(), "closing clients");
    left.shuffle(&mut rand::rng());
    let (total, began) = (left.len(), Instant::now());
    while !left.is_empty() {
        let share = (began.elapsed() + STEP).as_secs_f64() / over.as_secs_f64();
        let keep = total - ((total as f64 * share.min(1.0)).ceil() as usize).min(total);
        let now = left.split_off(keep.min(left.len()));
        close(shared, now);
        shared.metrics.draining.set(left.len() as i64);
        tokio::time::sleep(STEP).await;
    }
    let deadline = Instant::now() + LAST;
    while shared.is_busy() && Instant::now() < deadline {
        close(shared, list(shared).await);
        tokio::time::sleep(STEP).await;
    }
}

/// Closes whoever was still authenticating when the others were closed, for so long.
pub async fn stragglers(shared: &Arc<Shared>, patience: Duration) {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        tokio::time::sleep((STEP * 10).min(deadline - Instant::now())).await;
        close(shared, list(shared).await);
    }
}

/// How long closing so many takes: at the rate, at least `min` and at most `max`; no time for nobody.
fn window(clients: usize, rate: u32, min: Duration, max: Duration) -> Duration {
    match clients {
        0 => Duration::from_millis(1),
        _ => Duration::from_secs_f64(clients as f64 / f64::from(rate)).max(min).min(max).max(Duration::from_millis(1)),
    }
}

async fn list(shared: &Shared) -> Vec<(usize, Entry)> {
    let mut all = Vec::new();
    for (index, shard) in shared.shards.iter().enumerate() {
        let (answer, entries) = oneshot::channel();
        shard.send(Command::List(answer));
        all.extend(entries.await.unwrap_or_default().into_iter().map(|entry| (index, entry)));
    }
    all
}

fn close(shared: &Shared, clients: Vec<(usize, Entry)>) {
    let mut by_shard = vec![Vec::new(); shared.shards.len()];
    clients.into_iter().for_each(|(shard, entry)| by_shard[shard].push(entry));
    for (shard, entries) in shared.shards.iter().zip(by_shard) {
        if !entries.is_empty() {
            shard.send(Command::Close(entries, Close::Drain));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_closed_at_the_rate_within_the_bounds() {
        let (min, max) = (Duration::from_secs(30), Duration::from_secs(300));
        assert_eq!(window(0, 1000, min, max), Duration::from_millis(1));
        assert_eq!(window(10, 1000, min, max), min);
        assert_eq!(window(100_000, 1000, min, max), Duration::from_secs(100));
        assert_eq!(window(1_000_000, 1000, min, max), max);
    }
}
