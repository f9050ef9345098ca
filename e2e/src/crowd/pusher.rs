//! Pushes to a crowd for as long as its caller likes, and keeps when each was sent and answered.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::bench::push::{Entry, Log, Pushed, Schedule};
use crate::bench::stream::{Address, Kind};
use crate::checker::Offered;

/// A schedule that is being offered. Of one run there is one: a second one would use the same numbers again.
///
/// What is refused, as while the logic behind an Ingress is replaced, is kept as refused and not sent again.
pub struct Pusher {
    log: Log,
    offering: JoinHandle<anyhow::Result<Offered>>,
}

impl Pusher {
    /// Begins, on these threads.
    pub fn start(schedule: Schedule, entry: Entry, threads: &Handle) -> Self {
        let log = Log::default();
        let kept = log.clone();
        let offering = threads.spawn(async move { schedule.offer_logged(&entry, &kept).await });
        Self { log, offering }
    }

    /// Ends before the schedule does, unless that is over: waits for the last answers and hands over what was pushed.
    ///
    /// # Errors
    /// When the entry could not be reached at the start.
    pub async fn stop(mut self) -> anyhow::Result<Vec<Pushed>> {
        self.log.end();
        (&mut self.offering).await??;
        Ok(self.log.take())
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.log.end();
    }
}

/// The streams of a load of which half goes to keys, 45 % to rooms and 5 % to everybody, in turn.
pub fn half_to_keys(clients: u32, rooms: u32) -> Vec<u32> {
    let (keys, rooms) = (Kind::Key.streams(clients, rooms), Kind::Room.streams(clients, rooms));
    let (mut keys, mut rooms) = (keys.iter().copied().cycle(), rooms.iter().copied().cycle());
    // Twenty pushes a turn, and as many turns as there are clients: each key comes up equally often.
    let turns = (0..clients).flat_map(|_| 0..20);
    let streams = turns.filter_map(|place| match place {
        19 => Some(Address::All.stream()),
        even if even % 2 == 0 => keys.next(),
        _ => rooms.next(),
    });
    streams.collect()
}
