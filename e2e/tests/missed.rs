//! A comet that does not answer holds up nobody for longer than it may, and when it comes back whoever is connected to
//! it learns that something was missed.

use std::time::Duration;

use e2e::client::{Client, Dial, Received};
use e2e::eventually;
use e2e::program::{Options, Stack, post};
use proto::envelope::Gap;
use proto::op;

const SOON: Duration = Duration::from_secs(90);

async fn client(stack: &Stack, comet: usize, token: &str) -> Client {
    enter(stack, comet, token).await.unwrap()
}

async fn enter(stack: &Stack, comet: usize, token: &str) -> anyhow::Result<Client> {
    let target = format!("ws://{}/sub", stack.comet(comet).websocket()).parse()?;
    let mut client = Client::connect(&target, &Dial::default()).await?;
    client.auth(token).await?;
    Ok(client)
}

/// Waits until job has let comets go so often.
async fn let_go(stack: &Stack, times: u32) {
    eventually(SOON, "a comet to be let go", || async {
        let (_, page) = stack.job.get("/metrics").await?;
        anyhow::ensure!(page.contains(&format!("imcluster_job_comets_let_go_total {times}\n")), "not yet");
        anyhow::Ok(())
    })
    .await
    .unwrap();
}

async fn push(stack: &Stack, body: &'static str) {
    let (status, answer) = post(stack.http(), "/goim/push/room?operation=1000&type=live&room=1", body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
}

/// Waits for the op 23 that says what was missed.
async fn gap(client: &mut Client) -> Gap {
    loop {
        match client.next_within(SOON).await.unwrap() {
            Received::Packet(packet) if packet.op == op::GAP => return serde_json::from_slice(&packet.body).unwrap(),
            Received::Closed(code) => panic!("closed with {code:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comet_that_was_let_go_tells_its_clients_and_no_other_comet_does() {
    let job = vec!["--comet-stall=3s".to_owned()];
    let stack = Stack::start(Options { comets: 2, job, ..Options::default() }).await.unwrap();
    let mut told = client(&stack, 0, r#"{"key":"told","room_id":"live://1","caps":["envelope"]}"#).await;
    let mut closed = client(&stack, 0, r#"{"key":"closed","room_id":"live://1"}"#).await;
    let mut other = client(&stack, 1, r#"{"key":"other","room_id":"live://1"}"#).await;
    push(&stack, "heard by all").await;
    for client in [&mut told, &mut closed, &mut other] {
        assert_eq!(client.push_within(SOON).await.unwrap().1, "heard by all");
    }

    stack.comet(0).program.stop();
    push(&stack, "missed").await;
    assert_eq!(other.push_within(SOON).await.unwrap().1, "missed");
    let_go(&stack, 1).await;
    stack.comet(0).program.cont();
    let gap = gap(&mut told).await;
    assert_eq!((gap.reason.as_str(), gap.ranges.len()), ("missed", 1), "{gap:?}");
    assert_eq!(closed.closed_within(SOON).await.unwrap(), Some(1013));

    push(&stack, "heard again").await;
    for client in [&mut told, &mut other] {
        assert_eq!(client.push_within(SOON).await.unwrap().1, "heard again");
    }
    let (_, page) = stack.comet(1).program.get("/metrics").await.unwrap();
    assert!(page.contains("imcluster_comet_holes_total 0"), "the other comet missed nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_to_a_comet_that_was_let_go_and_is_started_again_is_sent_everything_from_then_on() {
    let job = vec!["--comet-stall=2s".to_owned()];
    // Nothing but job's word on every partition lets clients in.
    let comet = vec!["--claim-wait=1h".to_owned()];
    let stack = Stack::start(Options { job, comet, ..Options::default() }).await.unwrap();
    for round in 1..=3 {
        stack.comet(0).program.kill();
        push(&stack, "missed by nobody").await;
        let_go(&stack, round).await;
        stack.comet(0).program.process().restart().unwrap();
        let back = || enter(&stack, 0, r#"{"key":"back","room_id":"live://1"}"#);
        let mut back = eventually(SOON, "the comet to let clients in", back).await.unwrap();
        push(&stack, "first").await;
        push(&stack, "second").await;
        for body in ["first", "second"] {
            assert_eq!(back.push_within(SOON).await.unwrap().1, body, "in round {round}");
        }
    }
}
