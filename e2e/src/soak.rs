//! How long, how large and with which numbers a test runs: short and small in `make test`, as long as one likes and large
//! with `make soak`.

use std::time::Duration;

/// How long a test that can go on for ever does: `IMCLUSTER_SOAK_MINUTES`, else what it takes for enough.
pub fn length(enough: Duration) -> Duration {
    number("IMCLUSTER_SOAK_MINUTES").map_or(enough, |minutes| Duration::from_secs(minutes * 60))
}

/// How much of something a test takes: little in `make test`, all of it in a soak.
pub fn size<T>(enough: T, all: T) -> T {
    if number("IMCLUSTER_SOAK_MINUTES").is_some() { all } else { enough }
}

/// What a test seeds its random numbers with: `IMCLUSTER_SOAK_SEED`, else 1. The same seed is the same test.
pub fn seed() -> u64 {
    number("IMCLUSTER_SOAK_SEED").unwrap_or(1)
}

/// The seeds of a test that is run with a fixed and with a fresh one: only that of `IMCLUSTER_SOAK_SEED` when it is set.
pub fn seeds() -> Vec<u64> {
    number("IMCLUSTER_SOAK_SEED").map_or_else(|| vec![1, rand::random::<u32>().into()], |seed| vec![seed])
}

/// # Panics
/// When the variable is set and no number: a soak of the default length would be mistaken for the one asked for.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_as_long_as_it_says_unless_told_otherwise() {
        assert_eq!(number("IMCLUSTER_SOAK_OF_NOBODY"), None);
        if std::env::var_os("IMCLUSTER_SOAK_MINUTES").is_none() {
            assert_eq!(length(Duration::from_secs(7)), Duration::from_secs(7));
            assert_eq!(size(1, 1000), 1);
        }
    }

    #[test]
    fn one_seed_is_always_the_same_and_one_is_not_unless_a_seed_is_asked_for() {
        if std::env::var_os("IMCLUSTER_SOAK_SEED").is_none() {
            let many: Vec<_> = (0..10).map(|_| seeds()).collect();
            assert!(many.iter().all(|seeds| seeds.len() == 2 && seeds[0] == 1));
            assert!(many.iter().any(|seeds| seeds[1] != many[0][1]));
        }
    }
}
