//! The series of blows: endless, and made of its seed alone.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Blow, Deed, Others, Strike, Victim, World};

/// Milliseconds between the end of one blow and the next: often too short for everything to have settled.
const CALM: Range<u64> = 0..6_000;
/// How long what was killed stays dead.
const DEAD: Range<u64> = 0..10_000;
/// How long what is frozen stays so: shorter than a comet is waited for, about as long as a job's session.
const FROZEN: Range<u64> = 500..8_000;
/// How long a job and a comet hear nothing of each other: TCP tries again after 6 s, and then only after 13 s, when a comet
/// is not waited for any more.
const CUT_OFF_COMET: Range<u64> = 500..6_000;
/// The same of others: longer than any deadline, and than a job's session and a broker's.
const CUT_OFF: Range<u64> = 500..12_000;
/// How long what is said arrives late.
const LATE: Range<u64> = 1_000..10_000;
/// How long a clock is off, and by how many seconds at most.
const OFF: Range<u64> = 1_000..10_000;
const AHEAD: i64 = 7200;
/// How long Redis is frozen or alone: longer than Sentinel waits for it (1.5 s), so that it comes back to an heir.
const REDIS_AWAY: Range<u64> = 3_000..12_000;
/// One in so many is two at once.
const TWO: u32 = 3;
/// One in so many that are cut off are cut off from everybody.
const ALL: u32 = 3;

/// Such a series.
pub struct Blows(StdRng);

impl Blows {
    /// The series of this seed.
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    fn victim(&mut self) -> Victim {
        let random = &mut self.0;
        match random.random_range(0..12) {
            0..4 => Victim::Comet(random.random_range(0..World::COMETS)),
            4..7 => Victim::Job(random.random_range(0..World::JOBS)),
            7..9 => Victim::Logic(random.random_range(0..World::LOGICS)),
            9..11 => Victim::Broker(random.random_range(0..World::BROKERS)),
            _ => Victim::Redis,
        }
    }

    /// Somebody who talks to this one, or everybody.
    fn others(&mut self, victim: Victim) -> Others {
        if self.0.random_range(0..ALL) == 0 {
            return Others::All;
        }
        loop {
            let other = self.victim();
            if other.talks_to(victim) {
                return Others::One(other);
            }
        }
    }

    fn blow(&mut self) -> Blow {
        let victim = self.victim();
        let deed = match (self.0.random_range(0..11), victim) {
            (0, Victim::Comet(_)) => Deed::Clog,
            (0..4, _) => Deed::Kill,
            (4..6, _) => Deed::Freeze,
            (6..8, _) => Deed::Cut(self.others(victim)),
            (8..10, _) => Deed::Late(self.others(victim)),
            (_, Victim::Comet(_)) => Deed::Jump(self.0.random_range(-AHEAD..=AHEAD)),
            _ => Deed::Kill,
        };
        let blow = Blow { deed, victim, lasts: Duration::ZERO };
        let lasts = self.0.random_range(match (deed, victim) {
            (Deed::Kill, _) => DEAD,
            (Deed::Late(_), _) => LATE,
            (Deed::Jump(_), _) => OFF,
            (Deed::Freeze | Deed::Cut(Others::All), Victim::Redis) => REDIS_AWAY,
            (Deed::Freeze | Deed::Clog, _) => FROZEN,
            (Deed::Cut(_), _) if blow.holds_up_comets() => CUT_OFF_COMET,
            (Deed::Cut(_), _) => CUT_OFF,
        });
        Blow { lasts: Duration::from_millis(lasts), ..blow }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_series_and_another_one_is_not() {
        let series = |seed| Blows::new(seed).take(50).collect::<Vec<_>>();
        assert_eq!(series(7), series(7));
        assert_ne!(series(7), series(8));
    }

    fn everybody() -> Vec<Victim> {
        let comets = (0..World::COMETS).map(Victim::Comet);
        let logics = (0..World::LOGICS).map(Victim::Logic);
        let jobs = (0..World::JOBS).map(Victim::Job);
        let brokers = (0..World::BROKERS).map(Victim::Broker);
        comets.chain(logics).chain(jobs).chain(brokers).chain([Victim::Redis]).collect()
    }

    #[test]
    fn sooner_or_later_everything_is_struck_in_every_way_and_two_at_once() {
        let series: Vec<Strike> = Blows::new(1).take(20_000).collect();
        let struck =
            |deed, victim| series.iter().flat_map(|strike| &strike.blows).any(|b| (b.deed, b.victim) == (deed, victim));
        for victim in everybody() {
            let away = [Deed::Cut(Others::All), Deed::Late(Others::All)];
            assert!([Deed::Kill, Deed::Freeze].into_iter().chain(away).all(|deed| struck(deed, victim)), "{victim:?}");
            for other in everybody() {
                let lines = [Deed::Cut(Others::One(other)), Deed::Late(Others::One(other))];
                let struck = lines.map(|deed| struck(deed, victim));
                assert_eq!(struck, [victim.talks_to(other); 2], "{victim:?} and {other:?}");
            }
        }
        assert!((0..World::COMETS).all(|number| struck(Deed::Clog, Victim::Comet(number))));
        let off = |victim, ahead| {
            let mut blows = series.iter().flat_map(|strike| &strike.blows).filter(|blow| blow.victim == victim);
            blows.any(|blow| matches!(blow.deed, Deed::Jump(by) if by.signum() == ahead))
        };
        for victim in everybody() {
            assert_eq!([off(victim, 1), off(victim, -1)], [matches!(victim, Victim::Comet(_)); 2], "{victim:?}");
        }
        let two: Vec<_> = series.iter().filter(|strike| strike.blows.len() == 2).collect();
        assert!(two.len() > 4000 && two.iter().all(|strike| strike.blows[0].victim != strike.blows[1].victim));
    }

    #[test]
    fn a_comet_and_a_job_are_not_apart_for_as_long_as_a_comet_is_let_go() {
        let blows: Vec<Blow> = Blows::new(2).take(2000).flat_map(|strike| strike.blows).collect();
        let cuts = |held_up| {
            let cuts = blows.iter().filter(|blow| matches!(blow.deed, Deed::Cut(_)) && blow.victim != Victim::Redis);
            cuts.filter(move |blow| blow.holds_up_comets() == held_up).map(|blow| blow.lasts).max().unwrap()
        };
        assert!(cuts(true) < Duration::from_secs(6) && cuts(false) > Duration::from_secs(10));
    }
}
