//! One sampled push is one trace: from the HTTP request over the queue and job to the socket write, three processes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::client::{Client, Dial};
use e2e::eventually;
use e2e::program::{Options, Stack, post};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::{Request, Response, Status};

type Id = Vec<u8>;

/// One span the collector was sent.
#[derive(Clone, Debug)]
struct Sent {
    trace: Id,
    id: Id,
    parent: Id,
}

/// Stands in for an OTLP collector: keeps spans by name.
#[derive(Clone, Default)]
struct StandInCollector {
    spans: Arc<Mutex<BTreeMap<String, Sent>>>,
}

#[tonic::async_trait]
impl TraceService for StandInCollector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        for span in spans.flat_map(|scope| scope.spans) {
            let sent = Sent { trace: span.trace_id, id: span.span_id, parent: span.parent_span_id };
            self.spans.lock().unwrap().insert(span.name, sent);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampled_push_is_one_trace_from_the_request_to_the_socket() {
    let collector = StandInCollector::default();
    let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = format!("--otlp-endpoint=http://{}", incoming.local_addr().unwrap());
    let service = TraceServiceServer::new(collector.clone());
    let server = tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));

    let traced = vec![endpoint, "--trace-ratio=1".to_owned()];
    let options = Options { logic: traced.clone(), job: traced.clone(), comet: traced, ..Options::default() };
    let stack = Stack::start(options).await.unwrap();
    let target = format!("ws://{}/sub", stack.comets[0].websocket()).parse().unwrap();
    let mut client = Client::connect(&target, &Dial::default()).await.unwrap();
    client.auth(r#"{"key":"traced","room_id":"live://traced","accepts":[1000]}"#).await.unwrap();

    let path = "/goim/push/room?operation=1000&type=live&room=traced";
    let (status, answer) = post(stack.http(), path, "hello").await.unwrap();
    assert_eq!(status, 200, "{answer}");
    eventually(Duration::from_secs(60), "one trace of the push", || async {
        let spans = collector.spans.lock().unwrap().clone();
        let named = |name: &str| spans.get(name).ok_or_else(|| anyhow::anyhow!("no {name} in {:?}", spans.keys()));
        let (push, deliver, room, write) =
            (named("push")?, named("deliver")?, named("comet room")?, named("socket write")?);
        anyhow::ensure!([deliver, room, write].iter().all(|span| span.trace == push.trace), "{spans:?}");
        let chain = deliver.parent == push.id && room.parent == deliver.id && write.parent == room.id;
        anyhow::ensure!(chain, "not one chain: {spans:?}");
        anyhow::Ok(())
    })
    .await
    .unwrap();
    server.abort();
}
