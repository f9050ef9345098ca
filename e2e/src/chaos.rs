//! Chaos: a seeded series of blows against a [`World`] of real processes, while a crowd lives in it and is judged.
//!
//! A [`Blow`] befalls one process: killed and started again, frozen and let go on, cut off from one or all of the others,
//! heard late by them, given another time, or (a comet) readers that do not read. [`Blows`] is the series, now and then two at once;
//! the same seed is the same series. What it must not do to anybody is told by [`crate::crowd::judge()`], and by
//! [`verdict`], which knows what befell whom. The [`Journal`] keeps what happened.

mod held;
mod journal;
mod places;
mod series;
mod slow;
pub mod verdict;
mod world;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

pub use held::Watch;
pub use journal::Journal;
pub use series::Blows;
pub use slow::Slow;
pub use world::World;

/// Within what a client notices that its server is dead.
const NOTICED: Duration = Duration::from_secs(5);
/// Within what a comet that was let go has told its clients so.
const LET_GO: Duration = Duration::from_secs(30);

/// Whom a blow befalls; instances are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// Connections.
    Comet(usize),
    /// HTTP and sessions.
    Logic(usize),
    /// Kafka → comets.
    Job(usize),
    /// One of Kafka's.
    Broker(usize),
    /// Whichever Redis is the primary.
    Redis,
}

/// What befalls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// SIGKILL; later it is started again.
    Kill,
    /// SIGSTOP; later it goes on as if nothing had been.
    Freeze,
    /// Clients that are sent much and read nothing; later they leave.
    Clog,
    /// Nothing that these say to it arrives, nor what it says to them; later their connections go on, if they still do.
    Cut(Others),
    /// Whatever these and it say to each other arrives late.
    Late(Others),
    /// Its wall clock jumps by so many seconds; later it jumps back. Only a comet has one of its own.
    Jump(i64),
}

/// Whom a victim is apart from. Clients and backends reach it all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Every other process.
    All,
    /// This one.
    One(Victim),
}

/// One of the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blow {
    /// What.
    pub deed: Deed,
    /// Whom.
    pub victim: Victim,
    /// Until it is made good.
    pub lasts: Duration,
}

/// What begins at the same time: one blow, or two that befall two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// The calm before.
    pub after: Duration,
    /// Which.
    pub blows: Vec<Blow>,
}

/// A blow that was dealt and made good; times are those of [`crate::os::monotonic`].
#[derive(Clone, Debug)]
pub struct Suffered {
    /// Which.
    pub blow: Blow,
    /// When.
    pub from: Duration,
    /// When it was made good.
    pub to: Duration,
    /// When, by it, a push to somebody who is in may have found nobody.
    pub forgets: Option<Range<Duration>>,
}

impl Victim {
    /// Whether there are connections between the two.
    pub fn talks_to(self, other: Self) -> bool {
        use Victim::{Broker, Comet, Job, Logic, Redis};
        match (self, other) {
            (Broker(one), Broker(other)) => one != other,
            (Comet(_), Logic(_) | Job(_)) | (Logic(_) | Job(_), Comet(_)) => true,
            (Logic(_), Job(_) | Broker(_) | Redis) | (Job(_) | Broker(_) | Redis, Logic(_)) => true,
            (Job(_), Broker(_)) | (Broker(_), Job(_)) => true,
            _ => false,
        }
    }
}

impl Blow {
    /// Whether it comes between this comet and a job.
    pub fn holds_up(&self, comet: usize) -> bool {
        let comet = Victim::Comet(comet);
        match (self.deed, self.victim) {
            (Deed::Cut(Others::All), Victim::Job(_)) => true,
            (Deed::Cut(Others::One(other)), Victim::Job(_)) => other == comet,
            (Deed::Cut(Others::All | Others::One(Victim::Job(_))), victim) => victim == comet,
            _ => false,
        }
    }

    /// The same of any comet.
    pub fn holds_up_comets(&self) -> bool {
        (0..World::COMETS).any(|comet| self.holds_up(comet))
    }
}

impl Suffered {
    /// Whether it explains that this comet could not bring something to its clients then, and told them: it was killed just
    /// now, or was frozen or cut off for so long that it was let go.
    pub fn ends(&self, comet: usize, at: Duration) -> bool {
        let befell = self.blow.victim == Victim::Comet(comet);
        let until = match self.blow.deed {
            Deed::Kill if befell => self.to + NOTICED,
            Deed::Freeze if befell => self.to + LET_GO,
            Deed::Cut(_) if self.blow.holds_up(comet) => self.to + LET_GO,
            _ => return false,
        };
        (self.from..until).contains(&at)
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deed, victim, lasts } = self;
        match deed {
            Deed::Kill => write!(f, "{victim:?} killed")?,
            Deed::Freeze => write!(f, "{victim:?} frozen")?,
            Deed::Clog => write!(f, "{victim:?} clogged")?,
            Deed::Cut(others) => write!(f, "{victim:?} cut off from {others}")?,
            Deed::Late(others) => write!(f, "{victim:?} late to {others}")?,
            Deed::Jump(ahead) => write!(f, "{victim:?} {ahead:+} s off")?,
        }
        write!(f, " for {lasts:.1?}")
    }
}

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::One(other) => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blows: Vec<String> = self.blows.iter().map(Blow::to_string).collect();
        f.pad(&blows.join(", "))
    }
}
