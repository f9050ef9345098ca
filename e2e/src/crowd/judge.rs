//! Judges a crowd: who was closed when and for how long, and whether each push reached everybody it had to.
//!
//! In plain words. A push is sent at one moment and answered at a later one; at some moment between the two, or a little
//! after, it goes out to its receivers. A client that was out then cannot have it, and nobody kept it for him. So a push
//! that did not arrive is *excused* for a client if the time from when it was sent until it could have come touches one of
//! the client's own gaps: from the moment it saw its connection closed until it was authenticated again. Otherwise it is
//! *lost*. It could have come until the last other client of the same server had it, and 2 s more; when no other was to
//! have it there, for as long after its answer as the slowest push of the ten seconds before and after took; and when
//! nothing at all of that second came to anybody there, for `on_its_way`. A gap excuses nothing that was overtaken on the
//! connection before it, as order is kept.
//!
//! A client with capabilities may also be *told* (op 23) that it was not given something. That explains what was sent before
//! it was told, if nothing later of the same stream had come to it on that connection by then.
//!
//! A push that a server refused is not expected by anybody, though it may arrive; nor is one that was sent before the
//! client was in for the first time, or after the clients were told to end. Who comes back to another server may meet
//! there a push that he has seen already, or that was overtaken, however far that server is behind: that is counted but
//! no fault. On one and the same connection a push that comes again is a *repeat*, and one that comes after a later one
//! of its stream an *inversion*.
//!
//! A client that *moves* is in elsewhere before it leaves. That is no gap: it excuses nothing, and both connections are
//! one to the judge. What such a client has seen is what it hands out: what was left on the old connection, then what
//! came on the new one, less what it was given before. So is what it lost, saw twice or saw too late. To be closed all
//! the same, or told of something that it was not given, is a fault of its own.
//!
//! Everything here is a pure function of the [`Record`].

mod elsewhere;
mod moves;
mod pushes;

use std::time::Duration;

pub use moves::{Moves, Spread};
pub use pushes::{Loss, Pushes, Twist};

use super::{Phase, Record, Report, Wire};

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The length of the windows that closes and reconnects are counted in.
    pub window: Duration,
    /// Closes and moves, and also reconnects and moves, in any window.
    pub moves: usize,
    /// Closes of one client in one phase.
    pub closes_each: usize,
    /// Closes of clients that can move, in one phase.
    pub cut: usize,
    /// How often clients may be told that they were not given something (op 23), in one phase.
    pub told: usize,
    /// How long a client may be out after it was closed.
    pub gap: Duration,
    /// How long after its answer a push may come when nothing of its time shows how long that took.
    pub on_its_way: Duration,
}

/// How long a push may be on its way while nothing is broken.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

impl Limits {
    /// For clients that are closed at so many a second: a tenth more in any 5 s, everybody at most twice in a phase, who
    /// can move never, and in again within 10 s.
    pub fn of_rate(per_second: usize) -> Self {
        let window = Duration::from_secs(5);
        Self {
            window,
            moves: per_second * 5 * 11 / 10,
            closes_each: 2,
            cut: 0,
            told: 0,
            gap: Duration::from_secs(10),
            on_its_way: ON_ITS_WAY,
        }
    }
}

/// Holds a record against the limits.
pub fn judge(record: &Record, limits: &Limits) -> Report {
    let begin = std::iter::once((Duration::ZERO, "before the first mark"));
    let marks = begin.chain(record.marks.iter().map(|mark| (mark.at, mark.name.as_str())));
    let begins: Vec<Duration> = marks.clone().map(|(at, _)| at).collect();
    let deliveries = pushes::judge(record, &begins, limits.on_its_way);
    let ends = begins.iter().skip(1).copied().chain([Duration::MAX]);
    let phases = marks.zip(ends).zip(deliveries.phases).map(|(((from, name), to), pushes)| Phase {
        name: name.to_owned(),
        took: to.min(record.ended).saturating_sub(from.max(record.began)),
        moves: Moves::between(from..to, record, limits.window),
        pushes,
    });
    let total = Phase {
        name: "all of it".to_owned(),
        took: record.ended.saturating_sub(record.began),
        moves: Moves::between(Duration::ZERO..Duration::MAX, record, limits.window),
        pushes: deliveries.total,
    };
    let movable = record.lives.iter().filter(|life| life.movable);
    let wire = movable.fold(Wire::default(), |wire, life| Wire {
        given: wire.given + life.seen.values().map(|seen| seen.len() as u64).sum::<u64>() + life.again,
        again: wire.again + life.again,
    });
    let report = Report {
        clients: record.lives.len(),
        phases: phases.collect(),
        total,
        wire,
        strays: deliveries.strays,
        losses: deliveries.losses,
        twists: deliveries.twists,
        on_its_way: deliveries.on_its_way,
        began: record.began,
        reasons: record.reasons.clone(),
        faults: Vec::new(),
    };
    Report { faults: report.against(limits), ..report }
}

#[cfg(test)]
mod tests;
