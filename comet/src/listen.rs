//! The ports: bound once, before anything runs, and the loops that accept from them.
//!
//! Every shard has its own socket on every client port (`SO_REUSEPORT`), so the kernel spreads new connections and no
//! two shards wake for one. Socket options are set on the listening socket: Linux hands them down to what it accepts,
//! and accepting stays one system call.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::time::{Duration, Instant};

use runtime::CannotListen;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::config::{Bind, Config};
use crate::limits::{Limits, Permit};
use crate::shard::Command;
use crate::shared::Shared;
use crate::transport::ListenerKind;

/// Connections that may wait for `accept`; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Failures to accept are said at most this often: at the limit of open files they come with every client that leaves.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// One shard's sockets.
pub type Sockets = Vec<(StdListener, ListenerKind)>;

/// A bound client port: what was asked for, where it is, what is spoken there.
type Bound = (Bind, SocketAddr, ListenerKind);

/// Every bound port of a comet.
#[derive(Debug)]
pub struct Listeners {
    shards: Vec<Sockets>,
    bound: Vec<Bound>,
    grpc: StdListener,
    grpc_address: SocketAddr,
}

impl Listeners {
    /// Binds client ports once per shard, and the gRPC port.
    ///
    /// # Errors
    /// When a port is taken or may not be used; says which.
    pub fn bind(config: &Config) -> Result<Self, CannotListen> {
        let none: &[Bind] = &[];
        let (web_socket_tls, tcp_tls) = match config.tls_open {
            true => (&config.ws_tls_bind[..], &config.tcp_tls_bind[..]),
            false => (none, none),
        };
        let wanted = [
            (&config.tcp_bind[..], ListenerKind::Tcp),
            (&config.websocket_bind, ListenerKind::WebSocket),
            (web_socket_tls, ListenerKind::WebSocketTls),
            (tcp_tls, ListenerKind::TcpTls),
        ];
        let wanted = wanted.into_iter().flat_map(|(binds, kind)| binds.iter().map(move |bind| (*bind, kind)));
        let (shards, bound) = bind_clients(wanted, config.shard_count(), config)?;
        let (grpc, grpc_address) = bind_alone(config.grpc_bind)
            .and_then(|grpc| grpc.local_addr().map(|address| (grpc, address)))
            .map_err(|error| CannotListen::new("grpc-bind", shown(config.grpc_bind), error))?;
        Ok(Self { shards, bound, grpc, grpc_address })
    }

    /// How many shards the client ports were bound for.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Every client port, in the order of the settings.
    pub fn bound(&self) -> Vec<(SocketAddr, ListenerKind)> {
        self.bound.iter().map(|(_, address, kind)| (*address, *kind)).collect()
    }

    /// The first port of a kind.
    pub fn address(&self, kind: ListenerKind) -> Option<SocketAddr> {
        self.bound.iter().find(|(_, _, bound)| *bound == kind).map(|(_, address, _)| *address)
    }

    /// The gRPC port.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Each shard's sockets, non-blocking, and the gRPC socket.
    pub fn into_parts(self) -> (Vec<Sockets>, StdListener) {
        (self.shards, self.grpc)
    }

    /// What opens and closes the client ports, still closed, and the gRPC socket.
    pub fn into_gate(self) -> (Gate, StdListener) {
        // Opened again they are the same ports, also where any free one had been asked for.
        let ports = self.bound.iter().map(|(bind, at, kind)| (Bind { port: at.port(), ..*bind }, *kind)).collect();
        (Gate { ports, bound: Some(self.shards), accepting: None }, self.grpc)
    }
}

/// Opens and closes the client ports.
#[derive(Debug)]
pub struct Gate {
    ports: Vec<(Bind, ListenerKind)>,
    /// Bound at the start and not opened yet.
    bound: Option<Vec<Sockets>>,
    /// Set while open.
    accepting: Option<CancellationToken>,
}

impl Gate {
    /// Has every shard accept clients; nothing changes when they do already.
    ///
    /// # Errors
    /// When a port cannot be bound again; says which.
    pub fn open(&mut self, shared: &Shared) -> Result<(), CannotListen> {
        if self.accepting.is_some() {
            return Ok(());
        }
        let sockets = match self.bound.take() {
            Some(sockets) => sockets,
            None => bind_clients(self.ports.iter().copied(), shared.shards.len(), &shared.settings)?.0,
        };
        let accepting = CancellationToken::new();
        for (shard, sockets) in shared.shards.iter().zip(sockets) {
            shard.send(Command::Accept(sockets, accepting.clone()));
        }
        self.accepting = Some(accepting);
        Ok(())
    }

    /// Has every shard close its ports, soon.
    pub fn close(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.cancel();
        }
    }
}

/// Every shard's sockets on these client ports, and what was bound.
fn bind_clients(
    wanted: impl Iterator<Item = (Bind, ListenerKind)>,
    shards: usize,
    config: &Config,
) -> Result<(Vec<Sockets>, Vec<Bound>), CannotListen> {
    let mut all: Vec<Sockets> = (0..shards).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    for (bind, kind) in wanted {
        let (sockets, address) =
            bind_shared(bind, shards, config).map_err(|error| CannotListen::new(flag(kind), shown(bind), error))?;
        bound.push((bind, address, kind));
        for (shard, socket) in all.iter_mut().zip(sockets) {
            shard.push((socket, kind));
        }
    }
    Ok((all, bound))
}

/// The setting that a kind's ports come from.
fn flag(kind: ListenerKind) -> &'static str {
    match kind {
        ListenerKind::Tcp => "tcp-bind",
        ListenerKind::TcpTls => "tcp-tls-bind",
        ListenerKind::WebSocket => "websocket-bind",
        ListenerKind::WebSocketTls => "ws-tls-bind",
    }
}

fn shown(bind: Bind) -> String {
    bind.ip.map_or_else(|| format!(":{}", bind.port), |ip| SocketAddr::new(ip, bind.port).to_string())
}

/// One socket per shard on one port.
fn bind_shared(bind: Bind, count: usize, config: &Config) -> io::Result<(Vec<StdListener>, SocketAddr)> {
    if bind.port != 0 {
        // Sharing a port would let a second comet take half of our clients: found out by one that does not share.
        drop(bind_alone(bind)?);
    }
    let first = client_socket(bind, config)?;
    let address = first.local_addr()?;
    let same_port = Bind { port: address.port(), ..bind };
    let rest = (1..count).map(|_| client_socket(same_port, config));
    Ok((std::iter::once(Ok(first)).chain(rest).collect::<io::Result<_>>()?, address))
}

fn bind_alone(bind: Bind) -> io::Result<StdListener> {
    listening(bind, |_| Ok(()))
}

fn client_socket(bind: Bind, config: &Config) -> io::Result<StdListener> {
    listening(bind, |socket| {
        socket.set_reuse_port(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(config.tcp_user_timeout).filter(|timeout| !timeout.is_zero()))?;
        if config.tcp_keepalive {
            let (silence, between) = (Duration::from_secs(60), Duration::from_secs(15));
            let probes = TcpKeepalive::new().with_time(silence).with_interval(between).with_retries(4);
            socket.set_tcp_keepalive(&probes)?;
        }
        config.tcp_send_buffer.map_or(Ok(()), |size| socket.set_send_buffer_size(size))?;
        config.tcp_receive_buffer.map_or(Ok(()), |size| socket.set_recv_buffer_size(size))
    })
}

/// A listening socket; a port without an address is every IPv6 and IPv4 address, or every IPv4 one where there is no
/// IPv6.
fn listening(bind: Bind, options: impl Fn(&Socket) -> io::Result<()>) -> io::Result<StdListener> {
    let on = |address: SocketAddr| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(bind.ip.is_some())?;
        }
        options(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(StdListener::from(socket))
    };
    match bind.ip {
        Some(ip) => on(SocketAddr::new(ip, bind.port)),
        None => match on((Ipv6Addr::UNSPECIFIED, bind.port).into()) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                on((Ipv4Addr::UNSPECIFIED, bind.port).into())
            }
            bound => bound,
        },
    }
}

/// Accepts until `stop`, handing each socket on with its place. No error ends it: goim's loops end at the first one, and
/// a comet that ran out of files once stays deaf.
pub async fn accept(
    listener: TcpListener,
    limits: &Limits,
    stop: impl Future<Output = ()>,
    on_socket: impl FnMut(TcpStream, SocketAddr, Permit),
) {
    accept_from(|| listener.accept(), limits, stop, on_socket).await;
}

async fn accept_from<N, A>(
    mut next: N,
    limits: &Limits,
    stop: impl Future<Output = ()>,
    mut on_socket: impl FnMut(TcpStream, SocketAddr, Permit),
) where
    N: FnMut() -> A,
    A: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
{
    let mut stop = std::pin::pin!(stop);
    let mut failures = 0;
    let mut said: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            // Told to stop: no more clients, however many wait.
            biased;
            () = &mut stop => return,
            accepted = next() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                failures = 0;
                limits.counts.accepted.inc();
                // Without a place the socket closes here.
                if let Some(permit) = limits.enter() {
                    on_socket(socket, peer, permit);
                }
            }
            Err(error) => {
                limits.counts.accept_errors.inc();
                let Some(pause) = back_off(&error, failures) else { continue };
                if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                    said = Some(Instant::now());
                    tracing::error!(%error, "cannot accept connections, trying again");
                }
                failures += 1;
                tokio::select! {
                    () = &mut stop => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

/// How long to wait after the `failures`th failure in a row; `None` = the error was the connection's own, the next one
/// may be fine.
fn back_off(error: &io::Error, failures: u32) -> Option<Duration> {
    let own = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EPERM,
        // Linux passes pending network errors of the new socket on, see accept(2).
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EOPNOTSUPP,
    ];
    if error.raw_os_error().is_some_and(|code| own.contains(&code)) {
        return None;
    }
    Some(Duration::from_millis(5 << failures.min(8)).min(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests;
