//! Who may push, how much, how long; and the end.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::fakes::Mood;
use crate::metrics::RefusedLabels;
use crate::tokens;

const ALL: &str = "/goim/push/all?operation=1";

async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn guarded(lines: &str) -> (Site, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.toml");
    std::fs::write(&path, lines).unwrap();
    (Site::with(&format!("--push-tokens {}", path.display())).await, dir)
}

async fn push_as(site: &Site, token: &str, target: &str) -> Answer {
    client::ask(site.address, "POST", target, &format!("Authorization: Bearer {token}\r\n"), b"m").await
}

/// How many requests were turned away for this reason.
fn refused(site: &Site, reason: &'static str) -> u64 {
    site.api.metrics.refused.get_or_create(&RefusedLabels { reason }).get()
}

#[tokio::test]
async fn a_push_without_a_known_token_is_401_and_reading_needs_none() {
    let (token, lines) = tokens::make("a");
    let (site, _dir) = guarded(&lines).await;
    for answer in [site.post(ALL, b"m").await, push_as(&site, "guess", ALL).await] {
        assert_eq!((answer.status, answer.header("Www-Authenticate")), (401, Some("Bearer")));
        assert!(answer.body.starts_with(r#"{"code":-401,"message":"expected the header"#), "{}", answer.body);
    }
    assert_eq!((push_as(&site, &token, ALL).await.status, refused(&site, "unauthorized")), (200, 2));
    for target in ["/goim/online/total", "/goim/nodes/weighted", "/goim/nodes/instances", "/openapi.json", "/"] {
        assert_eq!(site.get(target).await.status, 200, "{target}");
    }
}

#[tokio::test]
async fn a_token_for_another_route_is_403() {
    let (token, lines) = tokens::make("rooms");
    let (site, _dir) = guarded(&lines.replace("\"*\"", "\"push/room\"")).await;
    let body = r#"{"code":-403,"message":"the token `rooms` may not use push/all"}"#;
    push_as(&site, &token, ALL).await.is(403, JSON, body);
    assert_eq!(refused(&site, "forbidden"), 1);
    assert_eq!(push_as(&site, &token, "/goim/push/room?operation=1&type=a&room=b").await.status, 200);
}

#[tokio::test]
async fn more_than_a_tokens_rate_is_429_and_says_when_to_come_back() {
    let (token, lines) = tokens::make("slow");
    let (site, _dir) = guarded(&format!("{lines}rate = 0.001\n")).await;
    assert_eq!(push_as(&site, &token, ALL).await.status, 200);
    let answer = push_as(&site, &token, ALL).await;
    answer.is(429, JSON, r#"{"code":-429,"message":"more pushes than this token may make, try again later"}"#);
    assert!(answer.header("Retry-After").unwrap().parse::<u64>().unwrap() > 900);
    assert_eq!(refused(&site, "rate"), 1);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_it_says_so_or_not() {
    let site = Site::start().await;
    let body = r#"{"code":-413,"message":"the message is longer than 1000000 bytes"}"#;
    site.post(ALL, &vec![0; 1_000_001]).await.is(413, JSON, body);
    let head = format!("POST {ALL} HTTP/1.1\r\nHost: l\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [format!("{:x}\r\n", 1_000_001).as_bytes(), &vec![0; 1_000_001], b"\r\n0\r\n\r\n"].concat();
    client::raw(site.address, &[head.as_bytes(), &chunk].concat()).await.is(413, JSON, body);
    assert_eq!((site.post(ALL, &vec![0; 999_000]).await.status, refused(&site, "body")), (200, 2));
}

#[tokio::test]
async fn more_keys_or_members_than_the_limit_are_413() {
    let site = Site::start().await;
    let body = r#"{"code":-413,"message":"10001 keys or members, at most 10000 in one push"}"#;
    site.post(&format!("/goim/push/keys?{}", "keys=&".repeat(10_001)), b"m").await.is(413, JSON, body);
    let site = Site::with("--push-auth none --max-push-keys 2").await;
    let body = r#"{"code":-413,"message":"3 keys or members, at most 2 in one push"}"#;
    site.post("/goim/push/mids?mids=1&mids=2&mids=3", b"m").await.is(413, JSON, body);
    assert_eq!((site.post("/goim/push/mids?mids=1&mids=2", b"m").await.status, refused(&site, "keys")), (200, 1));
}

#[tokio::test]
async fn a_target_beyond_64_kib_is_414() {
    let site = Site::start().await;
    assert_eq!(site.post(&format!("{ALL}&x={}", "x".repeat(60_000)), b"m").await.status, 200);
    assert_eq!(site.post(&format!("{ALL}&x={}", "x".repeat(66_000)), b"m").await.status, 414);
}

#[tokio::test]
async fn more_pushes_at_a_time_than_the_limit_are_503() {
    let site = Site::with("--push-auth none --http-in-flight 1").await;
    *site.queue.mood.lock() = Mood::Hanging;
    let mut first = TcpStream::connect(site.address).await.unwrap();
    let request = format!("POST {ALL} HTTP/1.1\r\nHost: l\r\nContent-Length: 1\r\n\r\nm");
    first.write_all(request.as_bytes()).await.unwrap();
    eventually("the first push is under way", || site.api.slots.available_permits() == 0).await;
    let answer = site.post(ALL, b"m").await;
    answer.is(503, JSON, r#"{"code":-500,"message":"too many pushes at a time, try again"}"#);
    assert_eq!((answer.header("Retry-After"), refused(&site, "in_flight")), (Some("1"), 1));
    drop(first);
    eventually("a client that leaves frees its place", || site.api.slots.available_permits() == 1).await;
}

#[tokio::test]
async fn a_push_that_is_not_acknowledged_in_time_is_503() {
    let site = Site::with("--push-auth none --push-deadline 50ms").await;
    *site.queue.mood.lock() = Mood::Hanging;
    let body = r#"{"code":-500,"message":"not acknowledged in time, it may be stored all the same"}"#;
    site.post(ALL, b"m").await.is(503, JSON, body);
}

#[tokio::test]
async fn a_body_that_trickles_in_holds_up_nobody_else_and_is_408_in_the_end() {
    let site = Site::with("--push-auth none --http-in-flight 1 --http-body-timeout 2s").await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        let head = format!("POST {ALL} HTTP/1.1\r\nHost: l\r\nConnection: close\r\nContent-Length: 100\r\n\r\nm");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(site.post(ALL, b"m").await.status, 200, "twenty slow bodies and one place do not matter");
    for mut stream in slow {
        let answer = client::read(&mut stream).await;
        answer.is(408, JSON, r#"{"code":-408,"message":"the body did not come in time"}"#);
    }
    assert_eq!((site.queue.pushed().len(), refused(&site, "slow_body")), (1, 20));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let site = Site::with("--push-auth none --http-idle-timeout 200ms").await;
    let mut silent = TcpStream::connect(site.address).await.unwrap();
    silent.write_all(b"GET / HTT").await.unwrap();
    let mut rest = Vec::new();
    let _reset = silent.read_to_end(&mut rest).await; // ends: that is the test
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let site = Site::with("--push-auth none --http-connections 1").await;
    let first = TcpStream::connect(site.address).await.unwrap();
    eventually("the first is in", || site.api.metrics.connections.get() == 1).await;
    let second = tokio::spawn(client::ask(site.address, "GET", "/goim/online/total", "", b""));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.await.unwrap().status, 200);
}

#[tokio::test]
async fn told_to_stop_it_ends_requests_in_flight_and_takes_no_more() {
    let mut site = Site::start().await;
    let mut idle = TcpStream::connect(site.address).await.unwrap();
    let mut busy = TcpStream::connect(site.address).await.unwrap();
    let head = format!("POST {ALL} HTTP/1.1\r\nHost: l\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    busy.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    busy.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n"); // so the head is read
    eventually("both are in", || site.api.metrics.connections.get() == 2).await;
    site.stop.take().unwrap().send(()).unwrap();
    let mut rest = Vec::new();
    let _reset = idle.read_to_end(&mut rest).await; // an idle connection is closed at once
    assert!(TcpStream::connect(site.address).await.is_err());
    busy.write_all(b"mm").await.unwrap();
    assert_eq!(client::read(&mut busy).await.status, 200);
    (&mut site.task).await.unwrap();
    assert_eq!(site.queue.pushed().len(), 1);
}
