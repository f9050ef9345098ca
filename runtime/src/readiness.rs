//! Ready means "send me work". It latches after the first contact with each dependency: a later outage shows in the
//! text, in `/status` and in `imcluster_dependency_up`, never in the status code, because an outage of one dependency
//! must not empty every Service.

use std::collections::BTreeMap;
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
    /// Why it takes no work for now.
    held: Option<&'static str>,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    is_dependency: bool,
    met: bool,
    trouble: Option<String>,
}

/// A dependency as it is now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Dependency {
    /// Whether it answers.
    pub up: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One thing that must have happened once before we are ready.
#[derive(Clone, Debug)]
pub struct Condition {
    shared: Arc<Mutex<Shared>>,
    index: usize,
}

impl Readiness {
    /// Adds a dependency that has not answered yet, and what is waited for.
    pub fn condition(&self, name: &'static str, waiting_for: &str) -> Condition {
        self.add(name, waiting_for, true)
    }

    /// Adds something of our own that must have happened once: it is waited for and no dependency.
    pub fn step(&self, name: &'static str, waiting_for: &str) -> Condition {
        self.add(name, waiting_for, false)
    }

    fn add(&self, name: &'static str, waiting_for: &str, is_dependency: bool) -> Condition {
        let mut shared = self.shared.lock();
        shared.conditions.push(State { name, is_dependency, met: false, trouble: Some(waiting_for.to_owned()) });
        Condition { shared: self.shared.clone(), index: shared.conditions.len() - 1 }
    }

    /// From now on we are not ready, whatever the conditions say.
    pub fn leave(&self) {
        self.shared.lock().leaving = true;
    }

    /// Not ready until [`Self::release`], whatever the conditions say, and why: the one way back from ready.
    pub fn hold(&self, why: &'static str) {
        self.shared.lock().held = Some(why);
    }

    /// Ready again, if the conditions are met.
    pub fn release(&self) {
        self.shared.lock().held = None;
    }

    /// Whether to send us work. Before the first condition is named nothing has started yet.
    pub fn is_ready(&self) -> bool {
        let shared = self.shared.lock();
        let met = !shared.conditions.is_empty() && shared.conditions.iter().all(|state| state.met);
        met && !shared.leaving && shared.held.is_none()
    }

    /// One line per condition: its name, `ok`, `waiting: …` or `down: …`.
    pub fn report(&self) -> String {
        let shared = self.shared.lock();
        let mut text = String::new();
        if shared.leaving {
            text.push_str("leaving: told to stop\n");
        } else if let Some(why) = shared.held {
            writeln!(text, "draining: {why}").expect("a String takes everything");
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

    /// Each dependency as it is now, once; services of one process that share one must all reach it.
    pub fn dependencies(&self) -> BTreeMap<&'static str, Dependency> {
        let mut all = BTreeMap::new();
        for state in self.shared.lock().conditions.iter().filter(|state| state.is_dependency) {
            let known = all.entry(state.name).or_insert(Dependency { up: true, error: None });
            if let (Some(why), true) = (&state.trouble, known.up) {
                let error = if state.met { why.clone() } else { format!("waiting: {why}") };
                *known = Dependency { up: false, error: Some(error) };
            }
        }
        all
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
        let error = Some("connection refused".to_owned());
        assert_eq!(readiness.dependencies(), [("redis", Dependency { up: false, error })].into());
    }

    #[test]
    fn a_step_is_waited_for_and_no_dependency() {
        let readiness = Readiness::default();
        let flow = readiness.step("flow", "a push to come back");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.report(), "flow: waiting: a push to come back\n");
        assert!(readiness.dependencies().is_empty());
        flow.up();
        assert!(readiness.is_ready());
    }

    #[test]
    fn held_is_not_ready_until_released_and_leaving_is_for_good() {
        let readiness = Readiness::default();
        readiness.condition("redis", "first answer").up();
        readiness.hold("told to by the pod's annotation");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.report(), "draining: told to by the pod's annotation\nredis: ok\n");
        readiness.release();
        assert!(readiness.is_ready());
        readiness.leave();
        readiness.release();
        assert!(!readiness.is_ready());
    }

    #[test]
    fn leaving_is_not_ready() {
        let readiness = Readiness::default();
        readiness.leave();
        assert!(!readiness.is_ready());
    }
}
