use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

struct Served {
    process: Process,
    address: SocketAddr,
}

impl Served {
    async fn start() -> Self {
        let process = Process::quiet();
        let address = serve("127.0.0.1:0".parse().unwrap(), Arc::new(process.clone())).await.unwrap();
        Self { process, address }
    }

    /// Status line and headers, and the body.
    async fn ask(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

#[tokio::test]
async fn live_answers_ok_and_anything_else_is_refused() {
    let served = Served::start().await;
    let (head, body) = served.ask("GET /live").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "ok");
    assert!(served.ask("GET /nowhere").await.0.starts_with("HTTP/1.1 404"));
    assert!(served.ask("POST /live").await.0.starts_with("HTTP/1.1 405"));
    assert!(served.ask("DELETE /status").await.0.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn ready_says_why_not_and_stays_ready_through_an_outage() {
    let served = Served::start().await;
    let redis = served.process.readiness.condition("redis", "first answer");
    let (head, body) = served.ask("GET /ready").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(body, "redis: waiting: first answer\n");
    redis.up();
    redis.down("connection refused");
    let (head, body) = served.ask("GET /ready").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "redis: down: connection refused\n");
    served.process.readiness.leave();
    assert!(served.ask("GET /ready").await.0.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn metrics_are_openmetrics_with_dependencies_version_and_process() {
    let served = Served::start().await;
    served.process.readiness.condition("redis", "first answer").up();
    served.process.readiness.condition("kafka", "first answer");
    let (head, body) = served.ask("GET /metrics").await;
    assert!(head.to_ascii_lowercase().contains(&format!("content-type: {OPEN_METRICS}")), "{head}");
    let version = format!("imcluster_build_info{{version=\"{}\"}} 1\n", crate::VERSION);
    for line in [
        "imcluster_dependency_up{dependency=\"redis\"} 1\n",
        "imcluster_dependency_up{dependency=\"kafka\"} 0\n",
        &version,
        "\nprocess_open_fds ",
        "\nprocess_max_fds ",
        "\nprocess_resident_memory_bytes ",
        "\nprocess_cpu_seconds_total ",
    ] {
        assert!(body.contains(line), "{line} in {body}");
    }
    assert!(body.ends_with("# EOF\n"), "{body}");
}

#[tokio::test]
async fn a_dependency_of_two_services_is_up_when_both_reach_it() {
    let served = Served::start().await;
    let first = served.process.readiness.condition("redis", "first answer");
    served.process.readiness.condition("redis", "first answer").up();
    first.down("refused");
    let (_, body) = served.ask("GET /metrics").await;
    assert_eq!(body.matches("imcluster_dependency_up{").count(), 1, "{body}");
    assert!(body.contains("imcluster_dependency_up{dependency=\"redis\"} 0\n"), "{body}");
}

#[tokio::test]
async fn status_is_json_with_what_every_service_adds() {
    let served = Served::start().await;
    served.process.readiness.condition("kafka", "first answer");
    let redis = served.process.readiness.condition("redis", "first answer");
    redis.up();
    served.process.status.part("connections", || 3.into());
    served.process.status.part("reloadError", || serde_json::Value::Null);
    let (head, body) = served.ask("GET /status").await;
    assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
    let mut status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(status["uptimeSeconds"].take().is_u64());
    let expected = serde_json::json!({
        "version": crate::VERSION, "uptimeSeconds": null, "ready": false, "connections": 3,
        "dependencies": {"kafka": {"up": false, "error": "waiting: first answer"}, "redis": {"up": true}},
    });
    assert_eq!(status, expected);
    redis.down("connection refused");
    let (_, body) = served.ask("GET /status").await;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["dependencies"]["redis"], serde_json::json!({"up": false, "error": "connection refused"}));
}

#[tokio::test]
async fn live_says_what_only_a_restart_can_cure() {
    let served = Served::start().await;
    served.process.liveness.set(Some("a watch is stuck".to_owned()));
    let (head, body) = served.ask("GET /live").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(body, "a watch is stuck");
    served.process.liveness.set(None);
    assert_eq!(served.ask("GET /live").await.1, "ok");
}

#[tokio::test]
async fn clients_that_say_nothing_are_let_go_and_the_next_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = Served { process: Process::quiet(), address: listener.local_addr().unwrap() };
    tokio::spawn(accept(listener, router(Arc::new(served.process.clone())), Duration::from_millis(50)));
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    assert_eq!(served.ask("GET /live").await.1, "ok");
    for stream in &mut silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_named() {
    let served = Served::start().await;
    let error = serve(served.address, Arc::new(Process::quiet())).await.unwrap_err();
    assert!(format!("{error:#}").starts_with(&format!("--admin is `{}`", served.address)), "{error:#}");
}
