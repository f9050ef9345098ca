//! Pushes to a crowd for as long as its caller likes, and keeps when each was sent and answered.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::bench::push::{Entry, Log, Pushed, Schedule};
use crate::bench::stream::Kind;
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
    in_turn(clients, rooms, |place| match place {
        19 => Kind::All,
        even if even % 2 == 0 => Kind::Key,
        _ => Kind::Room,
    })
}

/// The streams of a load of which a quarter goes to keys, a quarter to members, 45 % to rooms and 5 % to everybody.
pub fn to_all_kinds(clients: u32, rooms: u32) -> Vec<u32> {
    in_turn(clients, rooms, |place| match place {
        19 => Kind::All,
        fourth if fourth % 4 == 0 => Kind::Key,
        even if even % 2 == 0 => Kind::Mid,
        _ => Kind::Room,
    })
}

/// Twenty pushes a turn, each of the kind that its place has, and as many turns as there are clients: each key comes up
/// equally often.
fn in_turn(clients: u32, rooms: u32, kind: impl Fn(u32) -> Kind) -> Vec<u32> {
    let kinds = [Kind::Room, Kind::Key, Kind::Mid, Kind::All];
    let mut streams = kinds.map(|kind| (kind, kind.streams(clients, rooms).into_iter().cycle()));
    let places = (0..clients).flat_map(|_| 0..20).map(kind);
    places.filter_map(|kind| streams.iter_mut().find(|(of, _)| *of == kind)?.1.next()).collect()
}
