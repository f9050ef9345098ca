//! Tells logic, every few seconds, how many are in each room here; hears how many there are everywhere, and whether
//! logic may not know our sessions any more.

use std::sync::Arc;
use std::time::Duration;

use runtime::Condition;
use tokio::sync::Notify;

use crate::grpc::room_counts;
use crate::register::Standing;
use crate::shared::Shared;

/// Time to the next try after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Reports for ever. The first answer makes logic's condition met. `lost` hears when all sessions are to be registered.
pub async fn report(shared: Arc<Shared>, logic: Condition, lost: Arc<Notify>) {
    let mut standing = Standing::new();
    loop {
        let rooms = room_counts(&shared).await;
        shared.metrics.rooms.set(rooms.len() as i64);
        shared.metrics.queue_bytes.set(shared.queue.used.load(std::sync::atomic::Ordering::Relaxed) as i64);
        let pause = match shared.logic.renew_online(rooms, shared.info()).await {
            Ok(renewed) => {
                logic.up();
                if standing.is_lost(&renewed) {
                    lost.notify_one();
                }
                shared.cluster.store(Arc::new(renewed.everywhere));
                shared.settings.online_interval
            }
            Err(error) => {
                logic.down(&error.to_string());
                shared.metrics.logic_error("renew_online");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}
