//! The tracing subscriber: plain or JSON lines on stderr, and spans to an OTLP collector when an endpoint is given.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Subscriber;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{LogFormat, ProcessConfig};
use crate::trace;

/// How long the last spans may take to leave.
const FLUSH: Duration = Duration::from_secs(5);

/// The way to the collector, if there is one, and what is logged. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    filter: Option<reload::Handle<EnvFilter, Registry>>,
}

impl Telemetry {
    /// Logs by this filter from now on.
    ///
    /// # Errors
    /// When it is none, in words.
    pub fn log(&self, directives: &str) -> Result<(), String> {
        let filter = filter(directives).map_err(|error| error.to_string())?;
        self.filter.as_ref().map_or(Ok(()), |handle| handle.reload(filter).map_err(|error| error.to_string()))
    }

    /// Sends the spans that are still here and closes the exporter; waits at most five seconds for the collector.
    pub async fn flush(&self) {
        let Some(provider) = self.provider.clone() else {
            return;
        };
        // Blocks on the exporter's own thread.
        match tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "last traces were not sent"),
            Err(error) => tracing::warn!(%error, "last traces were not sent"),
        }
    }
}

/// Installs the process-wide subscriber and writes the version line.
///
/// # Errors
/// When the filter or the exporter cannot be built, or a subscriber is installed already.
pub(crate) fn install(config: &ProcessConfig) -> anyhow::Result<Telemetry> {
    let (subscriber, telemetry) = subscriber(config)?;
    tracing::subscriber::set_global_default(subscriber).context("a log subscriber is installed already")?;
    if config.otlp_endpoint.is_some() {
        trace::enable(config.trace_ratio);
    }
    tracing::info!(version = crate::VERSION, pid = std::process::id(), "imcluster starts");
    Ok(telemetry)
}

/// The subscriber that `config` describes. Inside a tokio runtime, which the exporter's channel lives on.
pub(crate) fn subscriber(config: &ProcessConfig) -> anyhow::Result<(impl Subscriber + Send + Sync + use<>, Telemetry)> {
    let (filter, handle) = reload::Layer::new(filter(&config.log)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.log_format {
        LogFormat::Plain => lines.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
    };
    let provider = config.otlp_endpoint.as_deref().map(provider).transpose()?;
    // Spans of `trace` only: everything else a service or a library opens is for the log.
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("imcluster"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == trace::TARGET))
    });
    let telemetry = Telemetry { provider, filter: Some(handle) };
    Ok((tracing_subscriber::registry().with(lines).with(spans), telemetry))
}

/// What goes to the log: everything but the spans of traces.
fn filter(directives: &str) -> anyhow::Result<EnvFilter> {
    Ok(EnvFilter::try_new(directives)?.add_directive(format!("{}=off", trace::TARGET).parse()?))
}

/// Sends in batches. Whether a push is traced was decided before its span was made, so nothing is left out here.
fn provider(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(FLUSH).build().with_context(
            || format!("--otlp-endpoint is `{endpoint}`: expected a URL such as http://127.0.0.1:4317"),
        )?;
    let resource = Resource::builder().with_service_name("imcluster").build();
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource)
        .with_batch_exporter(exporter)
        .build())
}

/// Checks a `--log` value.
///
/// # Errors
/// What was expected, in words.
pub(crate) fn check_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("expected a level or directives such as info,comet=debug ({error})")),
    }
}
