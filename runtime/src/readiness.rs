//! Ready means "send me work". It latches after the first contact with each dependency: a later outage shows in the
//! text, in `/status` and in `imcluster_dependency_up`, never in the status code, because an outage of one dependency
//! must not empty every Service.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;

/// Every condition of this process, and whether it is leaving. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    conditions: Vec<State>,
    leaving: bool,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    met: bool,
    trouble: Option<String>,
}

/// One thing that must have happened once before we are ready.
#[derive(Clone, Debug)]
pub struct Condition {
    shared: Arc<Mutex<Shared>>,
    index: usize,
}

impl Readiness {
    /// Adds a condition that is not met yet, and why.
    pub fn condition(&self, name: &'static str, waiting_for: &str) -> Condition {
        let mut shared = self.shared.lock();
        shared.conditions.push(State { name, met: false, trouble: Some(waiting_for.to_owned()) });
        Condition { shared: self.shared.clone(), index: shared.conditions.len() - 1 }
    }

    /// From now on we are not ready, whatever the conditions say.
    pub fn leave(&self) {
        self.shared.lock().leaving = true;
    }

    /// Whether to send us work. Before the first condition is named nothing has started yet.
    pub fn is_ready(&self) -> bool {
        let shared = self.shared.lock();
        !shared.leaving && !shared.conditions.is_empty() && shared.conditions.iter().all(|state| state.met)
    }

    /// One line per condition: its name, `ok`, `waiting: …` or `down: …`.
    pub fn report(&self) -> String {
        let shared = self.shared.lock();
        let mut text = String::new();
        if shared.leaving {
            text.push_str("leaving: told to stop\n");
        }
        for state in &shared.conditions {
            let written = match (&state.trouble, state.met) {
                (None, _) => writeln!(text, "{}: ok", state.name),
                (Some(why), false) => writeln!(text, "{}: waiting: {why}", state.name),
                (Some(why), true) => writeln!(text, "{}: down: {why}", state.name),
            };
            written.expect("a String takes everything");
        }
        text
    }

    /// Name and whether it answers now, for every condition.
    pub fn up(&self) -> Vec<(&'static str, bool)> {
        self.shared.lock().conditions.iter().map(|state| (state.name, state.trouble.is_none())).collect()
    }
}

impl Condition {
    /// It answered: met for good, and up now.
    pub fn up(&self) {
        let mut shared = self.shared.lock();
        let state = &mut shared.conditions[self.index];
        state.met = true;
        state.trouble = None;
    }

    /// It does not answer now, and why. Says it in the log when that is news.
    pub fn down(&self, why: &str) {
        let mut shared = self.shared.lock();
        let state = &mut shared.conditions[self.index];
        if state.met && state.trouble.is_none() {
            tracing::warn!(dependency = state.name, why, "dependency does not answer");
        }
        state.trouble = Some(why.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_latches_and_an_outage_shows_only_in_the_text() {
        let readiness = Readiness::default();
        let redis = readiness.condition("redis", "first answer");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.report(), "redis: waiting: first answer\n");
        redis.up();
        assert!(readiness.is_ready());
        redis.down("connection refused");
        assert!(readiness.is_ready());
        assert_eq!(readiness.report(), "redis: down: connection refused\n");
        assert_eq!(readiness.up(), [("redis", false)]);
    }

    #[test]
    fn leaving_is_not_ready() {
        let readiness = Readiness::default();
        readiness.leave();
        assert!(!readiness.is_ready());
    }
}
