//! Ready means "send me work". It latches after the first contact with each dependency: a later outage shows in the
//! text, in `/status` and in `imcluster_dependency_up`, never in the status code, because an outage of one dependency
//! must not empty every Service.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often the log says again what we still wait for.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// Every condition of this process, and whether it is leaving. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    shared: Arc<Mutex<Shared>>,
    /// Wakes whoever waits for a condition to be met.
    met: Arc<Notify>,
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
    met: Arc<Notify>,
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
        Condition { shared: self.shared.clone(), met: self.met.clone(), index: shared.conditions.len() - 1 }
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

    /// Says in the log which of these conditions are not met yet, once more every 30 s, and of each when it is. Returns
    /// when all of them are. `places` says of each where it is to be found; it must hold no secret. A condition that
    /// nobody has named here is passed over.
    pub async fn tell(&self, places: &[(&'static str, String)]) {
        let mut open: Vec<_> = places.iter().collect();
        let mut say_at = Instant::now();
        loop {
            // Listens before it looks, so that nothing is met in between.
            let mut met = std::pin::pin!(self.met.notified());
            met.as_mut().enable();
            let is_due = Instant::now() >= say_at;
            if is_due {
                say_at = Instant::now() + SAY_EVERY;
            }
            open.retain(|(dependency, address)| self.is_open(dependency, address, is_due));
            if open.is_empty() {
                return;
            }
            tokio::select! {
                () = met => {}
                () = tokio::time::sleep_until(say_at) => {}
            }
        }
    }

    /// Whether that condition is still to be met; says so when `is_due`, and says that it is met.
    fn is_open(&self, dependency: &str, address: &str, is_due: bool) -> bool {
        let shared = self.shared.lock();
        let Some(state) = shared.conditions.iter().find(|state| state.name == dependency) else {
            return false;
        };
        if state.met {
            tracing::info!(dependency, address, "the dependency answers");
        } else if is_due {
            let why = state.trouble.as_deref().unwrap_or_default();
            tracing::info!(dependency, address, why, "waiting for a dependency");
        }
        !state.met
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
        state.trouble = None;
        if !std::mem::replace(&mut state.met, true) {
            self.met.notify_waiters();
        }
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

    /// What was logged so far.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> Vec<String> {
            let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_says_what_is_waited_for_where_it_should_be_and_when_it_came() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .without_time()
            .with_ansi(false)
            .with_target(false)
            .finish();
        let _here = tracing::subscriber::set_default(subscriber);
        let readiness = Readiness::default();
        let [redis, kafka, _flow] = ["redis", "kafka", "flow"].map(|name| readiness.condition(name, "first answer"));
        let places = [("kafka", "k1:9092,k2:9092".to_owned()), ("redis", "127.0.0.1:6379".to_owned())];
        let telling = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.tell(&places).await }
        });
        let settle = || tokio::time::sleep(Duration::from_millis(1));
        let waiting = |name: &str, address: &str, why: &str| {
            format!(" INFO waiting for a dependency dependency=\"{name}\" address=\"{address}\" why=\"{why}\"")
        };
        let (k, r) = ("k1:9092,k2:9092", "127.0.0.1:6379");
        settle().await;
        assert_eq!(lines.take(), [waiting("kafka", k, "first answer"), waiting("redis", r, "first answer")]);

        redis.down("connection refused");
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert_eq!(lines.take(), [""; 0], "not again within 30 s");
        kafka.up();
        settle().await;
        assert_eq!(lines.take(), [format!(" INFO the dependency answers dependency=\"kafka\" address=\"{k}\"")]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(lines.take(), [(); 2].map(|()| waiting("redis", r, "connection refused")));
        redis.up();
        telling.await.unwrap();
        assert_eq!(lines.take(), [format!(" INFO the dependency answers dependency=\"redis\" address=\"{r}\"")]);
    }

    #[test]
    fn leaving_is_not_ready() {
        let readiness = Readiness::default();
        readiness.leave();
        assert!(!readiness.is_ready());
    }
}
