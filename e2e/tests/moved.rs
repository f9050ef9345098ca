//! A key that went to another comet between a push and its delivery gets it there; one that left is given up, with a
//! reason.

use std::time::Duration;

use e2e::client::{Client, Dial};
use e2e::eventually;
use e2e::program::{Options, Stack, post};

const SOON: Duration = Duration::from_secs(90);

async fn client(stack: &Stack, comet: usize) -> Client {
    let target = format!("ws://{}/sub", stack.comet(comet).websocket()).parse().unwrap();
    let mut client = Client::connect(&target, &Dial::default()).await.unwrap();
    client.auth(r#"{"key":"k","accepts":[1000]}"#).await.unwrap();
    client
}

async fn push(stack: &Stack, body: &'static str) {
    let (status, answer) = post(stack.http(), "/goim/push/keys?operation=1000&keys=k", body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains(r#""records":1"#), "{answer}");
}

/// Ends a connection and waits until its comet knows.
async fn leave(stack: &Stack, comet: usize, client: Client) {
    drop(client);
    eventually(SOON, "the comet to see that its client left", || async {
        let (_, status) = stack.comet(comet).program.get("/status").await?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        anyhow::ensure!(status["connections"] == 0, "{status}");
        anyhow::Ok(())
    })
    .await
    .unwrap();
}

/// Waits until job says this of itself.
async fn says(stack: &Stack, line: &str) {
    eventually(SOON, line, || async {
        let (_, page) = stack.job.get("/metrics").await?;
        anyhow::ensure!(page.contains(line), "not yet");
        anyhow::Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_follows_a_client_that_went_to_another_comet_and_is_given_up_when_it_is_on_none() {
    let stack = Stack::start(Options { comets: 2, partitions: 1, ..Options::default() }).await.unwrap();
    let mut first = client(&stack, 0).await;
    push(&stack, "where it is").await;
    assert_eq!(first.push_within(SOON).await.unwrap().1, "where it is");

    stack.job.stop();
    for body in ["on its way 1", "on its way 2", "on its way 3"] {
        push(&stack, body).await;
    }
    leave(&stack, 0, first).await;
    let mut second = client(&stack, 1).await;
    stack.job.cont();
    for body in ["on its way 1", "on its way 2", "on its way 3"] {
        assert_eq!(second.push_within(SOON).await.unwrap().1, body);
    }
    push(&stack, "where it is now").await;
    assert_eq!(second.push_within(SOON).await.unwrap().1, "where it is now", "once, and in order");

    stack.job.stop();
    push(&stack, "too late").await;
    leave(&stack, 1, second).await;
    stack.job.cont();
    says(&stack, "imcluster_job_undeliverable_total{reason=\"nowhere\"} 1").await;
    says(&stack, "imcluster_job_lag_records{partition=\"0\"} 0").await;
}
