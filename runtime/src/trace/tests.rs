use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::*;
use crate::config::{LogFormat, ProcessConfig};

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

#[test]
fn a_traceparent_is_read_as_the_recommendation_says() {
    let context = parse(SAMPLED).unwrap();
    assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
    assert!(sampled(SAMPLED) && !sampled(NOT_SAMPLED));
    assert!(sampled("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"), "a later version");
    for text in [
        "",
        "00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-é",
    ] {
        assert!(parse(text).is_none(), "{text}");
    }
}

/// One span the collector was sent; ids in hex.
#[derive(Clone, Debug)]
struct Sent {
    trace: String,
    id: String,
    parent: String,
    name: String,
}

#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Sent>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for resource in request.into_inner().resource_spans {
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let (trace, id, parent) = (hex(&span.trace_id), hex(&span.span_id), hex(&span.parent_span_id));
                self.spans.lock().push(Sent { trace, id, parent, name: span.name });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn one_push_is_one_trace_over_two_hops() {
    let collector = Collector::default();
    let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(incoming);
    let server = tokio::spawn(server);
    let config = ProcessConfig {
        file: None,
        live: "live.toml".into(),
        annotations: "annotations".into(),
        origin: Default::default(),
        admin: "127.0.0.1:0".parse().unwrap(),
        log: "warn".to_owned(),
        log_format: LogFormat::Plain,
        otlp_endpoint: Some(format!("http://{address}")),
        trace_ratio: 1.0,
    };
    let (subscriber, telemetry) = crate::telemetry::subscriber(&config).unwrap();
    let guard = tracing::subscriber::set_default(subscriber);
    enable(1.0);

    let first = push_span("http push", None);
    let carried = async {
        tracing::info_span!("a span of a library").in_scope(|| {});
        drop(child_span("queue"));
        current()
    };
    let carried = carried.instrument(first.clone()).await.expect("sampled");
    assert_eq!(of(&first), Some(carried.clone()));
    drop(first);
    let second = push_span("deliver", Some(&carried));
    note(&second, "partition", 3);
    assert!(of(&second).expect("sampled").starts_with(&carried[..35]), "same trace");
    drop(second);
    assert!(push_span("deliver", Some(NOT_SAMPLED)).is_none());
    telemetry.flush().await;

    let spans = collector.spans.lock().clone();
    let named =
        |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name} in {spans:?}"));
    let (push, queue, deliver) = (named("http push"), named("queue"), named("deliver"));
    assert_eq!(spans.len(), 3, "{spans:?}");
    assert_eq!(carried, format!("00-{}-{}-01", push.trace, push.id));
    assert_eq!((&deliver.trace, &deliver.parent), (&push.trace, &push.id));
    assert_eq!((&queue.trace, &queue.parent), (&push.trace, &push.id));
    drop(guard);
    server.abort();
}

#[test]
fn the_ratio_decides_only_where_a_trace_starts() {
    let subscriber = tracing_subscriber::registry();
    tracing::subscriber::with_default(subscriber, || {
        assert!(span_at(0.0, "push", None).is_none());
        assert!(!span_at(1.0, "push", None).is_none());
        assert!(!span_at(0.0, "push", Some(SAMPLED)).is_none());
        assert!(span_at(1.0, "push", Some(NOT_SAMPLED)).is_none());
    });
}

#[test]
fn an_untraced_span_has_no_traceparent() {
    assert_eq!(of(&Span::none()), None);
    note(&Span::none(), "partition", 1);
    continue_from(&Span::none(), SAMPLED);
}
