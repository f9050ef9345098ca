//! The command against an API server that holds one ImCluster and becomes Ready when told to.

use std::convert::Infallible;
use std::future::{pending, ready as now};
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::json;

use super::*;

const PATH: &str = "/apis/imcluster.dev/v1alpha1/namespaces/apps/imclusters";

/// What the server holds and was asked.
#[derive(Default)]
struct Server {
    held: Option<Value>,
    asked: Vec<String>,
    conditions: Value,
    made: u32,
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        self.asked.push(format!("{method} {path}"));
        let not_there = || (StatusCode::NOT_FOUND, json!({"kind": "Status", "code": 404, "reason": "NotFound"}));
        match (method, path.strip_prefix(PATH)) {
            (&Method::POST, Some("")) => {
                self.made += 1;
                let mut made: Value = serde_json::from_slice(body).unwrap();
                made["metadata"]["uid"] = json!(format!("uid-{}", self.made));
                made["metadata"]["generation"] = json!(1);
                self.held = Some(made.clone());
                (StatusCode::CREATED, made)
            }
            (&Method::GET, Some("/one")) => self.held.clone().map_or_else(not_there, |mut held| {
                held["status"]["conditions"] = self.conditions.clone();
                (StatusCode::OK, held)
            }),
            (&Method::DELETE, Some("/one")) => {
                let how: Value = serde_json::from_slice(body).unwrap();
                assert_eq!(how["propagationPolicy"], "Foreground");
                let held = self.held.take().unwrap();
                assert_eq!(how["preconditions"]["uid"], held["metadata"]["uid"]);
                (StatusCode::OK, held)
            }
            _ => panic!("{method} {path}"),
        }
    }

    fn condition(status: &str, generation: i64) -> Value {
        json!([{"type": "Ready", "status": status, "observedGeneration": generation,
                "reason": "CometNotReady", "message": "pod one-comet-0: image not found"}])
    }
}

fn api(server: &Arc<Mutex<Server>>) -> Api<DynamicObject> {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (status, answer) = server.lock().unwrap().answer(&parts.method, parts.uri.path(), &body);
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
        }
    });
    imclusters(Client::new(service, "apps"), "apps")
}

fn cluster() -> DynamicObject {
    serde_saphyr::from_str("apiVersion: imcluster.dev/v1alpha1\nkind: ImCluster\nmetadata: {name: one}\nspec: {}\n")
        .unwrap()
}

fn server(conditions: Value) -> Arc<Mutex<Server>> {
    Arc::new(Mutex::new(Server { conditions, ..Server::default() }))
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_imcluster_is_made_pushed_through_once_it_is_ready_and_removed() {
    let server = server(Server::condition("False", 1));
    let later = server.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        later.lock().unwrap().conditions = Server::condition("True", 1);
    });
    let began = Instant::now();
    let push = async {
        assert!(began.elapsed() >= Duration::from_secs(10), "pushed before it was Ready");
        let server = server.lock().unwrap();
        let label = &server.held.as_ref().unwrap()["metadata"]["labels"]["app.kubernetes.io/managed-by"];
        assert_eq!(label, "imcluster-smoke");
        Ok(())
    };
    smoke(&api(&server), cluster(), MINUTE, push, pending()).await.unwrap();
    let server = server.lock().unwrap();
    assert_eq!(server.held, None);
    assert_eq!(server.asked.iter().filter(|asked| asked.starts_with("POST")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn ready_at_an_older_generation_is_not_ready() {
    let server = server(Server::condition("True", 0));
    let failed = smoke(&api(&server), cluster(), MINUTE, now(Ok(())), pending()).await;
    assert!(failed.unwrap_err().to_string().contains("not Ready after 60 s"));
    assert_eq!(server.lock().unwrap().held, None);
}

#[tokio::test(start_paused = true)]
async fn what_never_gets_ready_is_removed_and_its_conditions_are_told() {
    let server = server(Server::condition("False", 1));
    let push = async { panic!("nothing is pushed") };
    let failed = smoke(&api(&server), cluster(), MINUTE, push, pending()).await.unwrap_err().to_string();
    assert!(failed.contains("Ready=False CometNotReady (pod one-comet-0: image not found)"), "{failed}");
    assert_eq!(server.lock().unwrap().held, None);
}

#[tokio::test(start_paused = true)]
async fn it_is_removed_also_when_the_push_failed_or_somebody_interrupts() {
    let server = server(Server::condition("True", 1));
    let refused = now(Err(anyhow::anyhow!("401")));
    let failed = smoke(&api(&server), cluster(), MINUTE, refused, pending()).await.unwrap_err();
    assert_eq!((failed.to_string().as_str(), &server.lock().unwrap().held), ("401", &None));

    let failed = smoke(&api(&server), cluster(), MINUTE, pending(), tokio::time::sleep(MINUTE)).await.unwrap_err();
    assert_eq!((failed.to_string().as_str(), &server.lock().unwrap().held), ("interrupted", &None));
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_has_left_is_removed_first_and_a_strangers_is_left_alone() {
    let left = |labels: Value| {
        json!({"apiVersion": "imcluster.dev/v1alpha1", "kind": "ImCluster",
        "metadata": {"name": "one", "uid": "old", "labels": labels}})
    };
    let server = server(Server::condition("True", 1));
    server.lock().unwrap().held = Some(left(json!({"app.kubernetes.io/managed-by": "imcluster-smoke"})));
    smoke(&api(&server), cluster(), MINUTE, now(Ok(())), pending()).await.unwrap();
    assert_eq!(server.lock().unwrap().asked.iter().filter(|asked| asked.starts_with("DELETE")).count(), 2);

    let theirs = left(json!({}));
    *server.lock().unwrap() = Server { held: Some(theirs.clone()), ..Server::default() };
    let failed = smoke(&api(&server), cluster(), MINUTE, now(Ok(())), pending()).await.unwrap_err();
    assert!(failed.to_string().contains("was not made by this command"), "{failed}");
    let server = server.lock().unwrap();
    assert_eq!((server.held.as_ref(), server.asked.len()), (Some(&theirs), 1));
}
