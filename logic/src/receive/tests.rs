use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use proto::protocol::Proto;
use tokio::net::TcpListener;

use super::*;

const SOON: Duration = Duration::from_secs(30);

/// A backend that answers with this status after so long, and tells what it was sent.
async fn backend(status: StatusCode, after: Duration) -> (Url, mpsc::UnboundedReceiver<serde_json::Value>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let answer = move |body: axum::Json<serde_json::Value>| async move {
        sender.send(body.0).unwrap();
        tokio::time::sleep(after).await;
        status
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/hook", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(axum::serve(listener, Router::new().route("/hook", post(answer))).into_future());
    (url, receiver)
}

fn start(url: Option<Url>, queue: u16, limit: Duration) -> Receive {
    let config = ReceiveConfig { url, concurrency: 1, queue, timeout: limit };
    Receive::start(&config, &Metrics::default(), Shutdown::new())
}

fn packet(seq: i32) -> ReceiveReq {
    let proto = Proto { ver: 1, op: 1000, seq, body: "hi \u{e9}".into() };
    ReceiveReq { mid: 7, proto: Some(proto), key: "phone".to_owned(), server: "h1".to_owned() }
}

async fn counted(receive: &Receive, result: &'static str, times: u64) {
    let count = async {
        while receive.results.get_or_create(&Labels { result }).get() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, count).await.unwrap_or_else(|_| panic!("not {times} times {result}"));
}

#[tokio::test]
async fn a_packet_is_posted_with_member_key_and_server() {
    let (url, mut posted) = backend(StatusCode::NO_CONTENT, Duration::ZERO).await;
    let receive = start(Some(url), 8, SOON);
    receive.offer(packet(3));
    let json = serde_json::json!(
        {"mid": 7, "key": "phone", "server": "h1", "op": 1000, "seq": 3, "body": "aGkgw6k="}
    );
    assert_eq!(timeout(SOON, posted.recv()).await.unwrap().unwrap(), json);
    counted(&receive, "ok", 1).await;
}

#[tokio::test]
async fn without_a_url_packets_are_only_counted() {
    let receive = start(None, 8, SOON);
    receive.offer(packet(1));
    counted(&receive, "ignored", 1).await;
}

#[tokio::test]
async fn a_slow_backend_costs_packets_and_never_a_wait() {
    let (url, mut posted) = backend(StatusCode::OK, SOON * 2).await;
    let receive = start(Some(url), 2, SOON * 2);
    receive.offer(packet(0));
    timeout(SOON, posted.recv()).await.unwrap().unwrap();
    for seq in 1..20 {
        receive.offer(packet(seq));
    }
    counted(&receive, "full", 16).await;
}

#[tokio::test]
async fn what_fails_is_counted_by_reason() {
    let (url, _posted) = backend(StatusCode::BAD_GATEWAY, Duration::ZERO).await;
    let receive = start(Some(url), 8, SOON);
    receive.offer(packet(1));
    counted(&receive, "refused", 1).await;

    let (url, _posted) = backend(StatusCode::OK, SOON).await;
    let receive = start(Some(url), 8, Duration::from_millis(20));
    receive.offer(packet(1));
    counted(&receive, "timeout", 1).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let receive = start(Some(nobody), 8, SOON);
    receive.offer(packet(1));
    counted(&receive, "unreachable", 1).await;
}

#[test]
fn only_web_addresses_are_taken() {
    assert!(web::url("https://backend.example/hook?x=1").is_ok());
    for text in ["backend:80", "ftp://backend/", "/hook"] {
        assert!(web::url(text).unwrap_err().starts_with("expected a URL"), "{text}");
    }
}
