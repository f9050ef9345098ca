//! What one client of a crowd went through: when it was in, when it was out and why, and what it saw.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::stamp::Stamp;

/// One client's record; times are those of [`crate::os::monotonic`].
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// The streams it is addressed by.
    pub streams: Vec<u32>,
    /// Whether it goes elsewhere before it leaves, when its server asks it to.
    pub movable: bool,
    /// When it was in, in order.
    pub stays: Vec<Stay>,
    /// When it tried to get in and was not let in.
    pub refusals: Vec<Duration>,
    /// When it was told that it was not given something (op 23).
    pub told: Vec<Told>,
    /// How often it was given what it had, by the id of op 25, and dropped it.
    pub again: u64,
    /// What arrived, by stream, in the order of arrival. 8 bytes each: 9 000 in ten minutes are 72 KB.
    pub seen: BTreeMap<u32, Vec<Arrival>>,
}

/// One time in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Where: which of the plan's targets.
    pub server: usize,
    /// When the auth reply was read; of a stay that a client moved to, when that took over.
    pub entered: Duration,
    /// How long that took, from the connect of the try that it came of.
    pub took: Duration,
    /// When and how it ended, unless it lasted until the crowd was told to end.
    pub ended: Option<(Duration, End)>,
}

/// How a stay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client left by itself.
    Left,
    /// The server closed: the WebSocket close code if it sent one.
    Closed(Option<u16>),
    /// The connection failed, said what no server says, or gave no sign of life from one heartbeat to the next.
    Broken,
    /// The client has gone on elsewhere, where it was let in at this time, and has had everything that was left here.
    Moved(Duration),
}

/// One push that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number in the stream.
    pub number: u32,
    /// From when it was due, in microseconds.
    pub micros: u32,
}

/// That a client that can be told was not given something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When it was told.
    pub at: Duration,
    /// Why, in the server's word.
    pub reason: String,
    /// How many messages, of this client's and, if nobody knows, of others'.
    pub dropped: u64,
}

/// A time between two stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where it was before.
    pub server: usize,
    /// When the stay before it ended.
    pub from: Duration,
    /// When the auth reply was read, if the client came in again.
    pub to: Option<Duration>,
    /// How the stay before it ended.
    pub after: End,
}

impl Life {
    /// A client that is addressed by these streams and was not in yet.
    pub fn new(streams: Vec<u32>) -> Self {
        Self { streams, ..Self::default() }
    }

    /// Notes a pushed body; false when it carries no stamp of this run.
    pub fn note(&mut self, body: &[u8], run: u32, now: Duration) -> bool {
        let Some(stamp) = Stamp::decode(body).filter(|stamp| stamp.run == run) else {
            return false;
        };
        // Rounded up: what came right after the stay began must not seem to have come before.
        let micros = u32::try_from(now.saturating_sub(stamp.due).as_nanos().div_ceil(1000)).unwrap_or(u32::MAX);
        self.seen.entry(stamp.stream).or_default().push(Arrival { number: stamp.number, micros });
        true
    }

    /// Notes the body of an op 23; false when it is none.
    pub fn note_gap(&mut self, body: &[u8], now: Duration) -> bool {
        let gap = serde_json::from_slice::<proto::envelope::Gap>(body);
        let told = gap.map(|gap| self.told.push(Told { at: now, reason: gap.reason, dropped: gap.dropped }));
        told.is_ok()
    }

    /// The number of the stay at that time, or of the one before it.
    pub fn stay_at(&self, time: Duration) -> usize {
        self.stays.partition_point(|stay| stay.entered <= time).saturating_sub(1)
    }

    /// It goes on at this server, where it was let in at this time, and has no more to do with the one before.
    pub fn move_to(&mut self, server: usize, let_in: Duration, took: Duration, now: Duration) {
        if let Some(stay) = self.stays.last_mut() {
            stay.ended = Some((now, End::Moved(let_in)));
        }
        self.stays.push(Stay { server, entered: now, took, ended: None });
    }

    /// The number of the visit that this stay is part of. Who moves has not been out: what it sees before and after is one.
    pub fn visit(&self, stay: usize) -> usize {
        self.stays[..stay].iter().filter(|stay| stay.moved().is_none()).count()
    }

    /// When it was let in where it moved to, in order.
    pub fn moves(&self) -> impl Iterator<Item = Duration> {
        self.stays.iter().filter_map(Stay::moved)
    }

    /// When it was out, from its first stay on, in order: gap n follows visit n.
    pub fn gaps(&self) -> Vec<Gap> {
        let gap = |(index, stay): (usize, &Stay)| {
            let ended = stay.ended.filter(|_| stay.moved().is_none());
            let ((from, after), to) = (ended?, self.stays.get(index + 1).map(|next| next.entered));
            Some(Gap { server: stay.server, from, to, after })
        };
        self.stays.iter().enumerate().filter_map(gap).collect()
    }
}

impl Stay {
    /// When it was let in elsewhere, if it ended so.
    fn moved(&self) -> Option<Duration> {
        match self.ended {
            Some((_, End::Moved(at))) => Some(at),
            _ => None,
        }
    }
}

impl Arrival {
    /// When it arrived, if its push was due then.
    pub fn time(&self, due: Duration) -> Duration {
        due + Duration::from_micros(self.micros.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_that_is_told_is_kept_and_other_words_are_none() {
        let (mut life, now) = (Life::default(), Duration::from_secs(7));
        let gap = br#"{"reason":"missed","dropped":3,"ranges":[{"partition":2,"from":5,"to":7}]}"#;
        assert!(life.note_gap(gap, now) && !life.note_gap(b"{}", now));
        assert_eq!(life.told, [Told { at: now, reason: "missed".to_owned(), dropped: 3 }]);
    }
}
