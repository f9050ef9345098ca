//! When clients are let in: not before jobs have vouched for every partition here, or have been waited for.

use proto::delivery::down::Frame;
use proto::delivery::{Mark, Marks};

use crate::stream::Job;
use crate::support::*;

const TOKEN: &str = r#"{"room_id":"r"}"#;

/// Vouches for a partition from its record 5 on.
fn vouch(job: &Job, partition: u32) {
    let marks = vec![Mark { partition, from: 5, through: 5, floor: 5, sent: 0 }];
    job.send(Frame::Marks(Marks { group: "g".into(), epoch: 7, generation: 1, marks }));
}

/// A client whose answer to its token nobody has yet.
async fn waiting(comet: &Comet, ws: bool) -> tokio::task::JoinHandle<()> {
    let tcp = tokio::net::TcpStream::connect(if ws { comet.ws } else { comet.tcp }).await.unwrap();
    tokio::spawn(async move { Client::over(tcp, ws).await.sign_in(TOKEN).await })
}

fn says_it_waits(comet: &Comet) -> bool {
    comet.process.readiness.report().contains("claims: waiting: every partition of the topic to be claimed here\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_come_in_once_jobs_have_vouched_for_every_partition() {
    let (comet, _) = comet(&["--claim-wait", "1h"]).await;
    let mut clients = Vec::new();
    for ws in [false, true] {
        clients.push(waiting(&comet, ws).await);
    }
    let (mut one, mut two) = (Job::open(&comet).await, Job::open(&comet).await);
    one.claim_of(vec![0, 1, 3], 1);
    [0, 1, 3].into_iter().for_each(|partition| vouch(&one, partition));
    two.claim_of(vec![2], 1);
    one.taken(4).await;
    two.taken(1).await;
    assert!(says_it_waits(&comet));
    assert_eq!(comet.metric("accepted_total"), 0.0);
    vouch(&two, 2);
    two.taken(2).await;
    for client in clients {
        within(client).await.unwrap();
    }
    eventually("it says so", || comet.process.readiness.report().contains("claims: ok\n")).await;
    assert_eq!(comet.metric("accepted_total"), 2.0);
    // Who is in stays in, and others come, when a job goes.
    drop(two);
    Client::signed_in(&comet, true, r#"{"key":"later"}"#).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_goims_claims_nothing_and_its_first_push_lets_clients_in() {
    let (comet, _) = comet(&["--claim-wait", "1h"]).await;
    let client = waiting(&comet, false).await;
    eventually("it says that it waits", || says_it_waits(&comet)).await;
    comet.push_room("r", &["m"]).await;
    within(client).await.unwrap();
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_job_clients_come_in_after_the_time_that_is_set() {
    let (comet, _) = comet(&["--claim-wait", "3s"]).await;
    let client = waiting(&comet, true).await;
    eventually("it says that it waits", || says_it_waits(&comet)).await;
    within(client).await.unwrap();
    eventually("it says so", || comet.process.readiness.report().contains("claims: ok\n")).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_stop_waits_for_nobody() {
    let (comet, _) = comet(&["--claim-wait", "1h"]).await;
    eventually("it waits", || says_it_waits(&comet)).await;
    comet.stop().await;
}
