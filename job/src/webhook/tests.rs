use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use proto::logic::PushMsg;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use super::*;
use crate::push::tests::record;

const SOON: Duration = Duration::from_secs(30);

/// A backend that answers with these statuses in turn, the last of them for ever, and tells what it was sent.
async fn backend(answers: &'static [StatusCode]) -> (Url, mpsc::UnboundedReceiver<Value>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let turn = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let answer = move |body: axum::Json<Value>| async move {
        sender.send(body.0).unwrap();
        let turn = turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        answers[turn.min(answers.len() - 1)]
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/lost", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/lost", post(answer))).await });
    (url, receiver)
}

fn push(id: &[u8]) -> Push {
    let message = PushMsg {
        id: id.to_vec().into(),
        operation: 1000,
        server: "comet-1".into(),
        msg: "secret".into(),
        created_ms: 77,
        ..Default::default()
    };
    Push::decode(&record(3, 9, &message), 1, Instant::now()).unwrap()
}

#[tokio::test]
async fn what_could_not_be_delivered_is_told_without_the_message() {
    let (url, mut told) = backend(&[StatusCode::NO_CONTENT]).await;
    let (outbox, task) = start(&url, Counter::default());
    outbox.put(&push(&[7; 16]), "k", "nowhere");
    let expected = json!([{
        "key": "k", "server": "comet-1", "partition": 3, "offset": 9, "id": "07070707-0707-0707-0707-070707070707",
        "op": 1000, "reason": "nowhere", "createdMs": 77,
    }]);
    assert_eq!(timeout(SOON, told.recv()).await.unwrap().unwrap(), expected);
    outbox.put(&push(b""), "of goim's logic", "not_here");
    let of_goim = timeout(SOON, told.recv()).await.unwrap().unwrap();
    assert_eq!((&of_goim[0]["key"], &of_goim[0]["id"]), (&json!("of goim's logic"), &Value::Null));
    assert_eq!(outbox.untold.get(), 0);
    drop(outbox);
    timeout(SOON, task).await.expect("it ends with its outboxes").unwrap();
}

#[tokio::test]
async fn a_call_that_fails_is_made_once_more_and_then_counted() {
    let (url, mut told) = backend(&[StatusCode::BAD_GATEWAY, StatusCode::OK, StatusCode::BAD_GATEWAY]).await;
    let untold = Counter::default();
    let (outbox, task) = start(&url, untold.clone());
    outbox.put(&push(b""), "taken at the second call", "nowhere");
    for _ in 0..2 {
        timeout(SOON, told.recv()).await.unwrap().unwrap();
    }
    outbox.put(&push(b""), "not taken", "nowhere");
    drop(outbox);
    timeout(SOON, task).await.unwrap().unwrap();
    assert_eq!(untold.get(), 1);
    assert!(told.recv().await.is_some() && told.recv().await.is_some());
}

#[tokio::test]
async fn more_than_the_queue_holds_is_counted_and_nobody_waits() {
    // Nobody takes from the queue before the test waits for something.
    let (outbox, _task) = start(&Url::parse("http://127.0.0.1:1/").unwrap(), Counter::default());
    for _ in 0..QUEUE + 3 {
        outbox.put(&push(b""), "k", "full");
    }
    assert_eq!(outbox.untold.get(), 3);
}
