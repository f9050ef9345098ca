use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::post;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::SocketAddr;
use tokio::net::TcpListener;

use super::*;

/// A backend that answers what a test says and keeps what it was asked.
#[derive(Clone, Default)]
struct Backend {
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<Mutex<Vec<Value>>>,
    from: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Backend {
    async fn start() -> (Self, Url) {
        let backend = Self::default();
        let served = backend.clone();
        let answer = move |ConnectInfo(from): ConnectInfo<SocketAddr>, body: axum::Json<Value>| async move {
            served.asked.lock().push(body.0);
            served.from.lock().insert(from);
            let (status, text) = served.answer.lock().clone();
            if status == 0 {
                std::future::pending::<()>().await;
            }
            (StatusCode::from_u16(status).unwrap(), text)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/who", listener.local_addr().unwrap())).unwrap();
        let app = Router::new().route("/who", post(answer)).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(axum::serve(listener, app).into_future());
        (backend, url)
    }

    fn say(&self, status: u16, answer: &Value) {
        *self.answer.lock() = (status, answer.to_string());
    }

    fn times(&self) -> usize {
        self.asked.lock().len()
    }
}

fn webhook(url: Url, cache: usize, timeout: Duration) -> Webhook {
    let config = WebhookConfig { auth_webhook_url: None, auth_webhook_timeout: timeout, auth_webhook_cache: cache };
    Webhook::new(&config, url, web::client(), AuthMetrics::default())
}

const LONG: Duration = Duration::from_secs(30);
const WHO: Presented<'_> = Presented { body: b"", cookie: "sid=1", address: "9.9.9.9" };

#[tokio::test]
async fn the_backend_is_told_what_the_client_brings_and_says_who_it_is() {
    let (backend, url) = Backend::start().await;
    let webhook = webhook(url, 8, LONG);
    backend.say(200, &json!({"mid": 7, "key": "tv", "rooms": ["a"], "connections": 2, "exp": 99_999_999_999_u64}));
    let expected = Grant {
        mid: Mid(7),
        key: Some("tv".into()),
        rooms: Some(vec!["a".into()]),
        connections: Some(2),
        expires_ms: 99_999_999_999_000,
    };
    assert_eq!(webhook.ask("t", WHO).await.unwrap(), expected);
    assert_eq!(*backend.asked.lock(), [json!({"token": "t", "cookie": "sid=1", "address": "9.9.9.9"})]);
    backend.say(200, &json!({"mid": 8, "more": "ignored"}));
    assert_eq!(
        webhook.ask("t", WHO).await.unwrap(),
        Grant { mid: Mid(8), ..Grant::default() },
        "no ttl, not remembered"
    );
    assert_eq!(backend.from.lock().len(), 1, "one connection is used again");
}

#[tokio::test]
async fn an_answer_is_remembered_for_its_ttl_and_for_the_same_client_alone() {
    let (backend, url) = Backend::start().await;
    let webhook = webhook(url, 8, LONG);
    backend.say(200, &json!({"mid": 7, "ttl": 3600}));
    for _ in 0..3 {
        assert_eq!(webhook.ask("t", WHO).await.unwrap().mid, Mid(7));
    }
    assert_eq!(backend.times(), 1);
    let others =
        [("t2", WHO), ("t", Presented { cookie: "sid=2", ..WHO }), ("t", Presented { address: "9.9.9.8", ..WHO })];
    for (times, (token, who)) in (2..).zip(others.into_iter().chain([("ts", Presented { cookie: "id=1", ..WHO })])) {
        webhook.ask(token, who).await.unwrap();
        assert_eq!(backend.times(), times);
    }
    backend.say(200, &json!({"mid": 9, "ttl": 0.01}));
    webhook.ask("short", WHO).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = backend.times();
    webhook.ask("short", WHO).await.unwrap();
    assert_eq!(backend.times(), before + 1);
}

#[tokio::test]
async fn no_more_answers_are_remembered_than_asked_for() {
    let (backend, url) = Backend::start().await;
    backend.say(200, &json!({"mid": 7, "ttl": 3600}));
    let webhook_of_two = webhook(url.clone(), 2, LONG);
    for token in ["1", "2", "3", "3", "2"] {
        webhook_of_two.ask(token, WHO).await.unwrap();
    }
    assert_eq!(backend.times(), 3);
    webhook_of_two.ask("1", WHO).await.unwrap();
    assert_eq!(backend.times(), 4, "the oldest was forgotten");
    let held = {
        let memory = webhook_of_two.shared.memory.lock();
        (memory.answers.len(), memory.order.len())
    };
    assert_eq!(held, (2, 2));
    let forgetful = webhook(url, 0, LONG);
    for _ in 0..2 {
        forgetful.ask("1", WHO).await.unwrap();
    }
    assert_eq!(backend.times(), 6);
}

#[tokio::test]
async fn an_answer_that_comes_twice_takes_one_place() {
    let mut memory = Memory { most: 2, ..Memory::default() };
    let until = Instant::now() + LONG;
    for name in [1, 2, 2, 2] {
        memory.keep([name; 32], Grant { mid: Mid(name.into()), ..Grant::default() }, until);
    }
    assert_eq!([1, 2].map(|name| memory.find(&[name; 32]).map(|grant| grant.mid)), [Some(Mid(1)), Some(Mid(2))]);
}

#[tokio::test]
async fn a_refusal_is_a_refusal_and_everything_else_a_reason_to_try_again() {
    let (backend, url) = Backend::start().await;
    let webhook = webhook(url, 8, LONG);
    for status in [401, 403] {
        backend.say(status, &json!({"mid": 7}));
        assert!(matches!(webhook.ask("t", WHO).await, Err(AuthError::Denied(Denied::Webhook))), "{status}");
    }
    for status in [201, 204, 302, 400, 404, 429, 500, 503] {
        backend.say(status, &json!({"mid": 7, "ttl": 60}));
        assert!(matches!(webhook.ask("t", WHO).await, Err(AuthError::Away(_))), "{status}");
    }
    for answer in [
        json!({}),
        json!({"mid": "7"}),
        json!({"mid": 7.5}),
        json!({"mid": 7, "key": ""}),
        json!({"mid": 7, "rooms": "a"}),
        json!({"mid": 7, "rooms": vec!["a"; ROOMS + 1]}),
        json!({"mid": 7, "rooms": ["a".repeat(ROOMS_BYTES), "b"]}),
        json!({"mid": 7, "connections": 0}),
        json!({"mid": 7, "exp": -1}),
        json!({"mid": 7, "ttl": -1}),
        json!([7]),
    ] {
        backend.say(200, &answer);
        assert!(matches!(webhook.ask("t", WHO).await, Err(AuthError::Away(_))), "{answer}");
    }
    backend.say(200, &json!({"mid": 7, "rooms": vec!["a".repeat(ROOMS_BYTES / ROOMS); ROOMS]}));
    assert_eq!(webhook.ask("t", WHO).await.unwrap().rooms.map(|rooms| rooms.len()), Some(ROOMS));
    backend.say(200, &json!({"mid": 7, "exp": 1, "ttl": 60}));
    for _ in 0..2 {
        assert!(matches!(webhook.ask("t", WHO).await, Err(AuthError::Denied(Denied::Expired))));
    }
}

#[tokio::test]
async fn a_backend_that_is_slow_or_gone_is_a_reason_to_try_again() {
    let (backend, url) = Backend::start().await;
    backend.say(0, &json!({}));
    let hasty = webhook(url, 8, Duration::from_millis(20));
    assert!(matches!(hasty.ask("t", WHO).await, Err(AuthError::Away(_))));
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/", port.local_addr().unwrap())).unwrap();
    drop(port);
    assert!(matches!(webhook(url, 8, LONG).ask("t", WHO).await, Err(AuthError::Away(_))));
}
