//! Until when a push could still come: by what others had of it, and how long others waited at the time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::pushes::{Streams, find};
use crate::bench::push::Pushed;
use crate::crowd::Record;

/// How long after the last other client of a server this one may have it.
const AFTER_OTHERS: Duration = Duration::from_secs(2);
/// How many seconds before and after a push count as its time.
const AROUND: u64 = 10;

/// What all clients together saw.
pub(super) struct Elsewhere {
    /// By stream, number and server: when the last of its clients there had it.
    latest: HashMap<(u32, u32, usize), Duration>,
    /// By the second that pushes were sent in: the longest that one was on its way.
    longest: HashMap<u64, Duration>,
    /// The server and second of every push that arrived.
    heard: HashSet<(usize, u64)>,
    /// What a push is given when nobody shows how long it may take.
    most: Duration,
}

impl Elsewhere {
    pub(super) fn of(record: &Record, streams: &Streams, most: Duration) -> Self {
        let (latest, longest, heard) = Default::default();
        let mut all = Self { latest, longest, heard, most };
        for life in &record.lives {
            for (stream, arrivals) in &life.seen {
                let Some(pushes) = streams.get(stream) else {
                    continue;
                };
                for arrival in arrivals {
                    let Some(push) = find(pushes, arrival.number).map(|at| &pushes[at]) else {
                        continue;
                    };
                    let at = arrival.time(push.due);
                    if let Some(stay) = life.stays.get(life.stay_at(at)).filter(|_| push.accepted) {
                        all.note(push, stay.server, at);
                    }
                }
            }
        }
        all
    }

    fn note(&mut self, push: &Pushed, server: usize, at: Duration) {
        let second = push.sent.as_secs();
        let latest = self.latest.entry((push.stream, push.number, server)).or_default();
        *latest = at.max(*latest);
        let longest = self.longest.entry(second).or_default();
        *longest = at.saturating_sub(push.sent).max(*longest);
        self.heard.insert((server, second));
    }

    /// The longest that any push was on its way, within what is allowed.
    pub(super) fn slowest(&self) -> Duration {
        self.longest.values().max().copied().unwrap_or_default().min(self.most)
    }

    /// Until when this server may still have brought it to a client of its own that did not see it.
    pub(super) fn until(&self, push: &Pushed, server: usize) -> Duration {
        let second = push.sent.as_secs();
        let around = second.saturating_sub(AROUND)..=second + AROUND;
        let way = *around.filter_map(|second| self.longest.get(&second)).max().unwrap_or(&self.most);
        match self.latest.get(&(push.stream, push.number, server)) {
            Some(others) => push.answered.max(*others) + way.min(AFTER_OTHERS),
            None if self.heard.contains(&(server, second)) => push.answered + way,
            // Nothing of that time has come to anybody there: it was cut off, and how long it was behind is not known.
            None => push.answered + self.most,
        }
    }
}
