//! Chaos: a seeded series of blows against a [`World`] of real processes, while a crowd lives in it and is judged.
//!
//! A [`Blow`] befalls one process: killed and started again, frozen and let go on, or (a comet) given readers that do not
//! read. [`Blows`] is the series, now and then two at once; the same seed is the same series. What it must not do to
//! anybody is told by [`crate::crowd::judge()`].

mod held;
mod slow;
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

/// The same for Redis: longer than Sentinel waits for it (1.5 s), so that it comes back to an heir.
const FROZEN_REDIS: std::ops::Range<u64> = 3_000..12_000;
/// One in so many is two at once.
const TWO: u32 = 3;
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

impl Suffered {
    /// Whether it explains that a connection to this comet ended then: it was killed just now, or was frozen for so long
    /// that it was let go.
    pub fn ends(&self, comet: usize, at: Duration) -> bool {
        let until = match self.blow.deed {
            Deed::Kill => self.to + NOTICED,
            Deed::Freeze => self.to + LET_GO,
            Deed::Clog => return false,
        };
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
    type Item = Strike;

    fn next(&mut self) -> Option<Strike> {
        let after = Duration::from_millis(self.0.random_range(CALM));
        let mut blows = vec![self.blow()];
        while self.0.random_range(0..TWO) == 0 && blows.len() < 2 {
            let second = self.blow();
            if second.victim != blows[0].victim {
                blows.push(second);
            }
        }
        Some(Strike { after, blows })
    }
}

impl Blows {
    fn blow(&mut self) -> Blow {
        let random = &mut self.0;
        let victim = match random.random_range(0..12) {
            0..4 => Victim::Comet(random.random_range(0..World::COMETS)),
            4..7 => Victim::Job(random.random_range(0..World::JOBS)),
            7..9 => Victim::Logic(random.random_range(0..World::LOGICS)),
            9..11 => Victim::Broker(random.random_range(0..World::BROKERS)),
            _ => Victim::Redis,
        };
        let deed = match (victim, random.random_range(0..5)) {
            (Victim::Comet(_), 4) => Deed::Clog,
            (_, even) if even % 2 == 0 => Deed::Kill,
            _ => Deed::Freeze,
        };
        let lasts = random.random_range(match (deed, victim) {
            (Deed::Kill, _) => DEAD,
            (_, Victim::Redis) => FROZEN_REDIS,
            _ => FROZEN,
        });
        Blow { deed, victim, lasts: Duration::from_millis(lasts) }
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deed = match self.deed {
            Deed::Kill => "killed",
            Deed::Freeze => "frozen",
            Deed::Clog => "clogged",
        };
        write!(f, "{:?} {deed} for {:.1?}", self.victim, self.lasts)
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blows: Vec<String> = self.blows.iter().map(Blow::to_string).collect();
        f.pad(&blows.join(", "))
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
    fn sooner_or_later_everything_is_struck_in_every_way_and_two_at_once() {
        let series: Vec<Strike> = Blows::new(1).take(1000).collect();
        let struck =
            |deed, victim| series.iter().flat_map(|strike| &strike.blows).any(|b| (b.deed, b.victim) == (deed, victim));
        for deed in [Deed::Kill, Deed::Freeze] {
            assert!((0..World::COMETS).all(|number| struck(deed, Victim::Comet(number))), "{deed:?}");
            assert!((0..World::LOGICS).all(|number| struck(deed, Victim::Logic(number))), "{deed:?}");
            assert!((0..World::JOBS).all(|number| struck(deed, Victim::Job(number))), "{deed:?}");
            assert!((0..World::BROKERS).all(|number| struck(deed, Victim::Broker(number))), "{deed:?}");
            assert!(struck(deed, Victim::Redis), "{deed:?}");
        }
        assert!((0..World::COMETS).all(|number| struck(Deed::Clog, Victim::Comet(number))));
        let two: Vec<_> = series.iter().filter(|strike| strike.blows.len() == 2).collect();
        assert!(two.len() > 200 && two.iter().all(|strike| strike.blows[0].victim != strike.blows[1].victim));
    }
}
