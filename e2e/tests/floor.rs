//! The floor with its receivers in a process of their own.

use std::time::Duration;

#[tokio::test]
async fn the_floor_of_ten_thousand_connections_is_measured() {
    let cost = tokio::task::spawn_blocking(|| e2e::bench::floor::measure(10_000, Duration::from_secs(1)));
    assert!(cost.await.unwrap().unwrap() > 0.1);
}
