//! Chaos: a seeded series of blows against a [`World`] of real processes, while a crowd lives in it and is judged.
//!
//! A [`Blow`] befalls one process: killed and started again, or frozen and let go on. [`Blows`] is the series; the same
//! seed is the same series. What it must not do to anybody is told by [`crate::crowd::judge()`].

mod held;
mod world;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use held::Watch;
pub use world::World;

/// Milliseconds between the end of one blow and the next: often too short for everything to have settled.
const CALM: std::ops::Range<u64> = 0..6_000;
/// How long what was killed stays dead.
const DEAD: std::ops::Range<u64> = 0..10_000;
/// How long what is frozen stays so: shorter than a comet is waited for, about as long as a job's session.
const FROZEN: std::ops::Range<u64> = 500..8_000;

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
}

/// One of the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blow {
    /// What.
    pub deed: Deed,
    /// Whom.
    pub victim: Victim,
    /// The calm before.
    pub after: Duration,
    /// Until it is made good.
    pub lasts: Duration,
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

impl Suffered {
    /// Whether it explains that a connection to this comet ended then: it was killed just now, or was frozen for so long
    /// that it was let go.
    pub fn ends(&self, comet: usize, at: Duration) -> bool {
        let until = self.to + if self.blow.deed == Deed::Kill { NOTICED } else { LET_GO };
        self.blow.victim == Victim::Comet(comet) && (self.from..until).contains(&at)
    }
}

/// An endless series, made of its seed alone.
pub struct Blows(StdRng);

impl Blows {
    /// The series of this seed.
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }
}

impl Iterator for Blows {
    type Item = Blow;

    fn next(&mut self) -> Option<Blow> {
        let random = &mut self.0;
        let victim = match random.random_range(0..12) {
            0..4 => Victim::Comet(random.random_range(0..World::COMETS)),
            4..7 => Victim::Job(random.random_range(0..World::JOBS)),
            7..9 => Victim::Logic(random.random_range(0..World::LOGICS)),
            9..11 => Victim::Broker(random.random_range(0..World::BROKERS)),
            _ => Victim::Redis,
        };
        let deed = if victim == Victim::Redis || random.random() { Deed::Kill } else { Deed::Freeze };
        let lasts = random.random_range(if deed == Deed::Kill { DEAD } else { FROZEN });
        let after = random.random_range(CALM);
        Some(Blow { deed, victim, after: Duration::from_millis(after), lasts: Duration::from_millis(lasts) })
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deed = match self.deed {
            Deed::Kill => "killed",
            Deed::Freeze => "frozen",
        };
        write!(f, "{:?} {deed} for {:.1?}", self.victim, self.lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_series_and_another_one_is_not() {
        let series = |seed| Blows::new(seed).take(50).collect::<Vec<_>>();
        assert_eq!(series(7), series(7));
        assert_ne!(series(7), series(8));
    }

    #[test]
    fn sooner_or_later_everything_is_struck_in_every_way() {
        let struck = |deed, victim| Blows::new(1).take(1000).any(|blow| (blow.deed, blow.victim) == (deed, victim));
        for deed in [Deed::Kill, Deed::Freeze] {
            assert!((0..World::COMETS).all(|number| struck(deed, Victim::Comet(number))), "{deed:?}");
            assert!((0..World::LOGICS).all(|number| struck(deed, Victim::Logic(number))), "{deed:?}");
            assert!((0..World::JOBS).all(|number| struck(deed, Victim::Job(number))), "{deed:?}");
            assert!((0..World::BROKERS).all(|number| struck(deed, Victim::Broker(number))), "{deed:?}");
        }
        assert!(struck(Deed::Kill, Victim::Redis));
    }
}
