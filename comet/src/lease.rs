//! The drain lease: somebody may ask this comet to drain by raising a number in its pod's annotations, and must go on
//! raising it. So whoever asked and died, or thought better of it, leaves nothing behind.
//!
//! Only our own clock counts, from the moment a change is seen. What the annotation says when we start is no change: a
//! process that starts again within its pod is not held by what was asked of the one before.

use std::time::Duration;

use runtime::annotations::Annotations;
use runtime::pod::DRAIN_ANNOTATION;
use tokio::time::Instant;

/// Whether we are asked to drain.
#[derive(Debug)]
pub struct Lease {
    annotations: Annotations,
    lasts: Duration,
    seen: Option<String>,
    until: Option<Instant>,
}

impl Lease {
    /// A lease that lasts so long after each change.
    pub fn new(mut annotations: Annotations, lasts: Duration) -> Self {
        let seen = annotations.borrow_and_update().get(DRAIN_ANNOTATION).cloned();
        Self { annotations, lasts, seen, until: None }
    }

    /// Waits until we are asked to drain. Cancel safe.
    pub async fn given(&mut self) {
        while self.look().is_none() {
            if self.annotations.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until we are not asked to drain any more: the number was not raised in time, or is gone. Cancel safe.
    pub async fn ended(&mut self) {
        while let Some(until) = self.look() {
            tokio::select! {
                changed = self.annotations.changed() => if changed.is_err() {
                    tokio::time::sleep_until(until).await;
                },
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Until when we are to drain, if we are.
    fn look(&mut self) -> Option<Instant> {
        let value = self.annotations.borrow_and_update().get(DRAIN_ANNOTATION).cloned();
        if value != self.seen {
            self.until = value.as_ref().map(|_| Instant::now() + self.lasts);
            self.seen = value;
        }
        self.until = self.until.filter(|until| Instant::now() < *until);
        self.until
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::*;

    const LASTS: Duration = Duration::from_secs(60);

    fn says(value: Option<&str>) -> Arc<BTreeMap<String, String>> {
        let others = [("imcluster.dev/config".to_owned(), "x".to_owned())];
        let ours = value.map(|value| (DRAIN_ANNOTATION.to_owned(), value.to_owned()));
        Arc::new(others.into_iter().chain(ours).collect())
    }

    fn lease(value: Option<&str>) -> (watch::Sender<Arc<BTreeMap<String, String>>>, Lease) {
        let (sender, annotations) = watch::channel(says(value));
        (sender, Lease::new(annotations, LASTS))
    }

    async fn is_given(lease: &mut Lease) -> bool {
        tokio::time::timeout(Duration::from_millis(1), lease.given()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_holds_for_a_minute_after_each_change_and_no_longer() {
        let (annotations, mut lease) = lease(None);
        assert!(!is_given(&mut lease).await);
        annotations.send_replace(says(Some("1")));
        assert!(is_given(&mut lease).await);
        for number in 2..5 {
            let early = tokio::time::timeout(LASTS - Duration::from_secs(1), lease.ended()).await;
            assert!(early.is_err(), "it was raised in time");
            annotations.send_replace(says(Some(&number.to_string())));
        }
        let raised = Instant::now();
        lease.ended().await;
        assert_eq!(raised.elapsed().as_secs(), 60);
        assert!(!is_given(&mut lease).await);
    }

    #[tokio::test(start_paused = true)]
    async fn other_annotations_and_the_same_number_again_are_no_change() {
        let (annotations, mut lease) = lease(None);
        annotations.send_replace(says(Some("1")));
        lease.given().await;
        let given = Instant::now();
        let again = async {
            loop {
                tokio::time::sleep(Duration::from_secs(7)).await;
                annotations.send_replace(says(Some("1")));
            }
        };
        tokio::select! {
            () = lease.ended() => {}
            () = again => {}
        }
        assert_eq!(given.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_that_is_taken_away_ends_it_at_once_and_one_from_before_the_start_is_none() {
        let (annotations, mut lease) = lease(Some("7"));
        assert!(!is_given(&mut lease).await);
        annotations.send_replace(says(Some("8")));
        assert!(is_given(&mut lease).await);
        annotations.send_replace(says(None));
        let begun = Instant::now();
        lease.ended().await;
        assert!(begun.elapsed() < Duration::from_secs(1));
        annotations.send_replace(says(Some("8")));
        assert!(is_given(&mut lease).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_who_could_ask_is_nobody_who_asks() {
        let mut lease = Lease::new(runtime::annotations::none(), LASTS);
        assert!(!is_given(&mut lease).await);
    }
}
