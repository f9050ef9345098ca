//! Waiting for something that will happen, with a deadline instead of a guess.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// What a deadline too far to be told is taken for: 30 years.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// What one attempt says: there it is, or why not yet.
pub trait Outcome {
    /// What is waited for.
    type Value;
    /// The value, or a word on why it is not there.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "not yet".to_owned())
    }
}

impl<T, E: Display> Outcome for Result<T, E> {
    type Value = T;
    fn outcome(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

impl Outcome for bool {
    type Value = ();
    fn outcome(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "false".to_owned())
    }
}

/// Asks again and again, 10 ms apart at first and 250 ms later, until the answer is `Some`, `Ok` or `true`.
///
/// # Errors
/// When the deadline passes first; the text names `what` and the last answer.
pub async fn eventually<A, F>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> anyhow::Result<A::Value>
where
    A: Outcome,
    F: Future<Output = A>,
{
    let end = Instant::now().checked_add(deadline).unwrap_or_else(|| Instant::now() + FOREVER);
    let mut pause = Duration::from_millis(10);
    let mut last = "no answer".to_owned();
    loop {
        match tokio::time::timeout_at(end, attempt()).await.map(Outcome::outcome) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(why)) => last = why,
            Err(_) => {}
        }
        if Instant::now() + pause >= end {
            anyhow::bail!("{what}: not within {deadline:?}; last: {last}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn asks_until_the_answer_is_there() {
        let mut asked = 0;
        let got = eventually(Duration::from_secs(30), "three", || {
            asked += 1;
            let now = asked;
            async move { (now == 3).then_some(now) }
        });
        assert_eq!(got.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn names_what_it_waited_for_and_the_last_answer() {
        let never = eventually(Duration::from_millis(30), "the moon", || async { Err::<(), _>("still down") });
        let text = never.await.unwrap_err().to_string();
        assert!(text.contains("the moon") && text.contains("still down"), "{text}");
    }

    #[tokio::test]
    async fn an_attempt_that_hangs_does_not_pass_the_deadline() {
        let hangs = eventually(Duration::from_millis(30), "nothing", std::future::pending::<bool>);
        assert!(hangs.await.is_err());
    }
}
