//! Carries a trace from process to process as W3C `traceparent` text (<https://www.w3.org/TR/trace-context/>).
//!
//! Whether a push is traced is decided once, where it enters: a share of `--trace-ratio`, or what its sender's
//! `traceparent` says. Everything after follows that flag. A push that is not traced has no span at all
//! ([`Span::none`]), and without a collector every call here ends after one atomic load.

use std::fmt::Write as _;
use std::sync::OnceLock;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header, metadata key and record header it travels in.
pub const HEADER: &str = "traceparent";
/// Only spans with this target are exported.
pub(crate) const TARGET: &str = "imcluster::trace";

/// The share of new traces; unset = no collector.
static RATIO: OnceLock<f64> = OnceLock::new();

/// From now on this share of pushes is traced; the first call counts.
pub(crate) fn enable(ratio: f64) {
    RATIO.get_or_init(|| ratio);
}

/// A span for one push, or for one step of it in this process: part of the trace that `traceparent` names when that is
/// sampled, the start of a new trace for a share of the pushes without one, else [`Span::none`].
pub fn push_span(name: &'static str, traceparent: Option<&str>) -> Span {
    RATIO.get().map_or_else(Span::none, |ratio| span_at(*ratio, name, traceparent))
}

fn span_at(ratio: f64, name: &'static str, traceparent: Option<&str>) -> Span {
    match traceparent.and_then(parse) {
        Some(parent) if parent.is_sampled() => {
            let span = span(name);
            adopt(&span, parent);
            span
        }
        Some(_) => Span::none(),
        None if rand::random::<f64>() < ratio => span(name),
        None => Span::none(),
    }
}

fn span(name: &'static str) -> Span {
    tracing::info_span!(target: TARGET, parent: None, "push", otel.name = name)
}

/// A span below the current one, when that is traced.
pub fn child_span(name: &'static str) -> Span {
    if RATIO.get().is_none() {
        return Span::none();
    }
    match current() {
        Some(_) => tracing::info_span!(target: TARGET, "step", otel.name = name),
        None => Span::none(),
    }
}

/// The current span as `traceparent`, when it belongs to a sampled trace.
pub fn current() -> Option<String> {
    RATIO.get()?;
    of(&Span::current())
}

/// A span as `traceparent`, when it belongs to a sampled trace.
pub fn of(span: &Span) -> Option<String> {
    if span.is_none() {
        return None;
    }
    let context = span.context();
    let context = context.span();
    let context = context.span_context();
    if !context.is_valid() || !context.is_sampled() {
        return None;
    }
    let mut text = String::with_capacity(55);
    write!(text, "00-{}-{}-01", context.trace_id(), context.span_id()).expect("a String takes everything");
    Some(text)
}

/// Whether the text names a trace that is sampled.
pub fn sampled(traceparent: &str) -> bool {
    parse(traceparent).is_some_and(|context| context.is_sampled())
}

/// Makes `span` part of the trace that `traceparent` names; text that is not one changes nothing.
/// Only before the span was entered or asked for its own `traceparent`.
pub fn continue_from(span: &Span, traceparent: &str) {
    if let Some(parent) = parse(traceparent) {
        adopt(span, parent);
    }
}

/// Adds a value to a span: an op, a partition, a count; never a body or a token.
pub fn note(span: &Span, name: &'static str, value: impl Into<opentelemetry::Value>) {
    if !span.is_none() {
        span.set_attribute(name, value);
    }
}

fn adopt(span: &Span, parent: SpanContext) {
    if let Err(error) = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent)) {
        tracing::debug!(%error, "span keeps its own trace");
    }
}

/// `version-trace-parent-flags`; a later version may have more after that.
fn parse(text: &str) -> Option<SpanContext> {
    let mut fields = text.split('-');
    let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_hex = |field: &str, length| {
        field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !is_hex(version, 2) || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
        return None;
    }
    if version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests;
