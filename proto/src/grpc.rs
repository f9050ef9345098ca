//! One set of gRPC settings for every server and channel of ours, chosen to live with grpc-go 1.22 on the other side.
//!
//! No keepalive pings from our clients: a Go server answers more than one in five minutes with `too_many_pings`.
//! A dead peer is found by TCP (keepalive, user timeout) and by the deadline every call has.
//!
//! Servers and channels are plain, or secured by [`tls`].

mod socket;
pub mod tls;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use futures::{Stream, StreamExt};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tonic::Request;
use tonic::codegen::http::uri::InvalidUri;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tower::ServiceExt;

use socket::Socket;
use tls::Tls;

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
/// How many callers may be in the middle of their handshake; more wait to be accepted.
const HANDSHAKES: usize = 1024;
/// How long to wait when accepting fails, as when no file descriptor is left.
const BACK_OFF: Duration = Duration::from_millis(50);

/// A server that tolerates goim's pings (every 10 s, also without streams) and pings idle peers itself.
pub fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .tcp_nodelay(true)
}

/// The connections that a server serves: all that come, or with `tls` those of our own processes. A caller that fails
/// its handshake holds up no other.
pub fn incoming(listener: TcpListener, tls: Option<Tls>) -> impl Stream<Item = Result<Socket, Infallible>> + Send {
    let secured = move |socket: TcpStream| {
        let tls = tls.clone();
        async move {
            match tls {
                None => Some(Socket::Plain(socket)),
                Some(tls) => tls.accept(socket).await.map(|stream| Socket::Tls(Box::new(stream))),
            }
        }
    };
    let accepted = TcpIncoming::from(listener).with_nodelay(Some(true)).then(accepted);
    let accepted = accepted.filter_map(std::future::ready);
    accepted.map(secured).buffer_unordered(HANDSHAKES).filter_map(std::future::ready).map(Ok::<_, Infallible>)
}

/// What was accepted, or nothing after a moment: accepting goes on whatever happens.
async fn accepted(socket: io::Result<TcpStream>) -> Option<TcpStream> {
    match socket {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::warn!(%error, "cannot accept connections of other services, trying again");
            tokio::time::sleep(BACK_OFF).await;
            None
        }
    }
}

/// A channel to `host:port` that connects on first use and again by itself; every call on it ends within `deadline`.
///
/// # Errors
/// When the address is not one.
pub fn channel(address: &str, deadline: Duration) -> Result<Channel, InvalidUri> {
    channel_over(address, deadline, None)
}

/// The same, over `tls` when given.
///
/// # Errors
/// When the address is not one.
pub fn channel_over(address: &str, deadline: Duration, tls: Option<&Tls>) -> Result<Channel, InvalidUri> {
    let uri: Uri = format!("http://{address}").parse()?;
    // As tonic's own, which has no user timeout.
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(UNACKNOWLEDGED));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let endpoint =
        Endpoint::from(uri).timeout(deadline).initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let Some(tls) = tls.cloned() else {
        return Ok(endpoint.connect_with_connector_lazy(tcp));
    };
    let to: std::sync::Arc<str> = address.into();
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
        let (tcp, tls, to) = (tcp.clone(), tls.clone(), to.clone());
        async move {
            let socket = tcp.oneshot(uri).await?.into_inner();
            Ok::<_, Box<dyn Error + Send + Sync>>(TokioIo::new(tls.connect(socket, &to).await?))
        }
    })))
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
