//! The client of the API server: few and short tries of our own, and every call counted.
//!
//! A call is tried at most three times within five seconds, so that no call outlives the Lease. A creation is sent
//! again only when the server says that it did not take it; everything else we send means the same the second time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use tokio::time::Instant;
use tower::{BoxError, Service, ServiceExt as _};

use crate::metrics::{Call, Metrics};

/// How often one call is sent at most.
const TRIES: u32 = 3;
/// How long all tries and the waits between them take at most.
const BUDGET: Duration = Duration::from_secs(5);
/// The first wait; the next is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A client for the cluster this process runs in, or the one kubectl would talk to.
///
/// # Errors
/// When neither is configured.
pub async fn client(metrics: &Metrics) -> anyhow::Result<Client> {
    let mut config = kube::Config::infer().await.context("no API server: neither a pod's account nor a kubeconfig")?;
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    let metrics = metrics.clone();
    let builder = ClientBuilder::try_from(config).context("cannot build a client of the API server")?;
    let buffer = tower::layer::layer_fn(|service| tower::buffer::Buffer::new(service, 1024));
    let calls = tower::layer::layer_fn(move |inner| Calls { inner, metrics: metrics.clone() });
    Ok(builder.with_layer(&buffer).with_layer(&calls).build())
}

/// Sends calls, again where that is safe, and counts them.
#[derive(Clone, Debug)]
pub struct Calls<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Calls<S> {
    /// Wraps what really sends.
    pub fn new(inner: S, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }
}

impl<S, B> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut inner = self.inner.clone();
        let metrics = self.metrics.clone();
        Box::pin(async move {
            let began = Instant::now();
            let (verb, kind) = describe(request.method(), request.uri(), request.headers());
            let mut request = request;
            for sent in 1.. {
                let again = copy(&request);
                let answer = match inner.ready().await {
                    Ok(ready) => ready.call(request).await.map_err(Into::into),
                    Err(error) => Err(error.into()),
                };
                let code = answer.as_ref().map_or(0, |response| response.status().as_u16());
                if verb == "watch" && (200..300).contains(&code) {
                    metrics.read.watches.well(&kind);
                }
                metrics.calls.get_or_create(&Call { verb, kind: kind.clone(), code }).inc();
                let (Ok(response), Some(next)) = (&answer, again) else { return answer };
                match wait(verb, response.status(), response.headers(), sent, began.elapsed()) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return answer,
                }
                request = next;
            }
            unreachable!("the loop ends with an answer")
        })
    }
}

/// How long to wait before the call is sent again, `None` when it is not.
fn wait(verb: &str, code: StatusCode, headers: &HeaderMap, sent: u32, elapsed: Duration) -> Option<Duration> {
    let repeatable = match code {
        StatusCode::TOO_MANY_REQUESTS => verb != "watch",
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => !matches!(verb, "watch" | "create"),
        _ => false,
    };
    let asked = headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
    let pause = asked.map_or(FIRST_WAIT * 2_u32.pow(sent - 1), Duration::from_secs);
    (repeatable && sent < TRIES && elapsed + pause <= BUDGET).then_some(pause)
}

fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Verb and resource of a call, as RBAC names them.
fn describe(method: &Method, uri: &Uri, headers: &HeaderMap) -> (&'static str, String) {
    let mut parts = uri.path().trim_matches('/').split('/');
    let prefix = match parts.next() {
        Some("openapi") => return ("get", "openapi".to_owned()),
        Some("apis") => 2,
        _ => 1,
    };
    let mut rest: Vec<&str> = parts.skip(prefix).collect();
    if rest.len() > 2 && rest[0] == "namespaces" {
        rest.drain(..2);
    }
    let kind = match rest.as_slice() {
        [kind, _, sub, ..] => format!("{kind}/{sub}"),
        [kind, ..] => (*kind).to_owned(),
        [] => "discovery".to_owned(),
    };
    let is_apply = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("application/apply-patch")));
    let verb = match *method {
        Method::GET if uri.query().is_some_and(|query| query.contains("watch=true")) => "watch",
        Method::GET if rest.len() == 1 => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH if is_apply => "apply",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    (verb, kind)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn described(method: Method, uri: &str) -> (&'static str, String) {
        describe(&method, &uri.parse().unwrap(), &HeaderMap::new())
    }

    #[test]
    fn calls_are_named_as_rbac_names_them() {
        let scale = "/apis/apps/v1/namespaces/ns/statefulsets/prod-comet/scale";
        for (method, uri, verb, kind) in [
            (Method::GET, "/api/v1/namespaces/ns/pods?labelSelector=a", "list", "pods"),
            (Method::GET, "/api/v1/pods?watch=true", "watch", "pods"),
            (Method::GET, "/apis/apps/v1/namespaces/ns/statefulsets/prod-comet", "get", "statefulsets"),
            (Method::PATCH, scale, "patch", "statefulsets/scale"),
            (Method::POST, "/api/v1/namespaces/ns/secrets", "create", "secrets"),
            (Method::GET, "/openapi/v3/apis/imcluster.dev/v1alpha1", "get", "openapi"),
            (Method::GET, "/apis/monitoring.coreos.com/v1", "get", "discovery"),
        ] {
            assert_eq!(described(method, uri), (verb, kind.to_owned()), "{uri}");
        }
    }

    #[test]
    fn a_creation_is_not_sent_again_when_it_may_have_been_taken() {
        let none = HeaderMap::new();
        let at = |verb, code, sent| wait(verb, code, &none, sent, Duration::ZERO);
        assert_eq!(at("create", StatusCode::GATEWAY_TIMEOUT, 1), None);
        assert_eq!(at("create", StatusCode::TOO_MANY_REQUESTS, 1), Some(FIRST_WAIT));
        assert_eq!(at("apply", StatusCode::SERVICE_UNAVAILABLE, 2), Some(FIRST_WAIT * 2));
        assert_eq!(at("apply", StatusCode::SERVICE_UNAVAILABLE, TRIES), None);
        assert_eq!(at("get", StatusCode::CONFLICT, 1), None);
    }

    #[test]
    fn a_server_that_asks_for_more_patience_than_the_lease_has_gets_none() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, "2".parse().unwrap());
        let busy = StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(wait("get", busy, &headers, 1, Duration::ZERO), Some(Duration::from_secs(2)));
        assert_eq!(wait("get", busy, &headers, 2, Duration::from_secs(4)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_taken_up_is_well_and_a_list_says_nothing_of_it() {
        let server = tower::service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(())) });
        let metrics = Metrics::register(&runtime::Metrics::default());
        let watches = metrics.read.watches.clone();
        watches.begin("pods", true);
        watches.failed("pods", &kube::runtime::watcher::Error::NoResourceVersion);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut calls = Calls::new(server, metrics);
        for (path, age) in [("/api/v1/pods", 60), ("/api/v1/pods?watch=true&timeoutSeconds=290", 0)] {
            calls.call(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(watches.ages(), [("pods".to_owned(), Duration::from_secs(age))], "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_asked_three_times_and_every_try_is_counted() {
        let asked = Arc::new(AtomicU32::new(0));
        let server = tower::service_fn({
            let asked = asked.clone();
            move |_: Request<Body>| {
                asked.fetch_add(1, Ordering::SeqCst);
                async {
                    let mut answer = Response::new(());
                    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    Ok::<_, BoxError>(answer)
                }
            }
        });
        let process = runtime::Metrics::default();
        let mut calls = Calls::new(server, Metrics::register(&process));
        let request = Request::get("/api/v1/pods").body(Body::empty()).unwrap();
        let answer = calls.call(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), asked.load(Ordering::SeqCst)), (503, 3));
        let counted = "imcluster_operator_api_calls_total{verb=\"list\",kind=\"pods\",code=\"503\"} 3\n";
        assert!(process.encode().contains(counted), "{}", process.encode());
    }
}
