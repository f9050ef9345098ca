//! One set of gRPC settings for every server and channel of ours, chosen to live with grpc-go 1.22 on the other side.
//!
//! No keepalive pings from our clients: a Go server answers more than one in five minutes with `too_many_pings`.
//! A dead peer is found by TCP (keepalive, user timeout) and by the deadline every call has.

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Server, Uri};

/// The largest message either side takes, in bytes: goim's clients' limit.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Stream and connection windows, in bytes.
const WINDOW: u32 = 4 * 1024 * 1024;
/// The metadata key a trace travels in (<https://www.w3.org/TR/trace-context/>).
const TRACE: &str = "traceparent";
/// How long establishing a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long what was sent may stay unacknowledged by the peer's kernel before the connection is given up and made anew.
/// Without a bound TCP tries again ever more seldom, so that a network that was cut for a minute stays cut for another.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// A server that tolerates goim's pings (every 10 s, also without streams) and pings idle peers itself.
pub fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .tcp_nodelay(true)
}

/// A channel to `host:port` that connects on first use and again by itself; every call on it ends within `deadline`.
///
/// # Errors
/// When the address is not one.
pub fn channel(address: &str, deadline: Duration) -> Result<Channel, tonic::codegen::http::uri::InvalidUri> {
    let uri: Uri = format!("http://{address}").parse()?;
    // As tonic's own, which has no user timeout.
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(UNACKNOWLEDGED));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    Ok(Endpoint::from(uri)
        .timeout(deadline)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect_with_connector_lazy(tcp))
}

/// A request that carries its trace, when it belongs to one.
pub fn traced<T>(message: T, traceparent: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    // Text that cannot be metadata is no traceparent either.
    if let Some(value) = traceparent.and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert(TRACE, value);
    }
    request
}

/// The trace that a request carries.
pub fn traceparent<T>(request: &Request<T>) -> Option<&str> {
    request.metadata().get(TRACE)?.to_str().ok()
}

#[cfg(test)]
mod tests;
