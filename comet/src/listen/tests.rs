use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::SockRef;

use super::*;
use crate::config::for_tests;

#[test]
fn every_shard_has_its_own_socket_on_every_port() {
    let listeners = Listeners::bind(&for_tests()).unwrap();
    let bound = listeners.bound();
    let tcp = listeners.address(ListenerKind::Tcp).unwrap();
    assert_ne!(tcp.port(), 0);
    assert_eq!(listeners.address(ListenerKind::WebSocketTls), None, "TLS ports are closed unless asked for");
    assert_ne!(listeners.grpc_address().port(), 0);
    let (shards, _grpc) = listeners.into_parts();
    assert_eq!(shards.len(), 2);
    for shard in shards {
        let of_shard: Vec<_> = shard.iter().map(|(socket, kind)| (socket.local_addr().unwrap(), *kind)).collect();
        assert_eq!(of_shard, bound);
    }
}

#[test]
fn tls_ports_open_when_asked_for() {
    let listeners = Listeners::bind(&Config { tls_open: true, ..for_tests() }).unwrap();
    let kinds: HashSet<_> = listeners.bound().iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds.len(), 4);
}

#[test]
fn a_port_that_another_comet_has_is_refused_by_name() {
    let first = Listeners::bind(&for_tests()).unwrap();
    let taken = first.address(ListenerKind::WebSocket).unwrap();
    let error = Listeners::bind(&Config { websocket_bind: vec![taken.into()], ..for_tests() }).unwrap_err();
    let expected =
        format!("--websocket-bind is `{taken}`: address in use: end what listens there, or choose another port");
    assert_eq!((error.to_string(), error.exit_code()), (expected, 1));
}

#[tokio::test]
async fn a_port_alone_takes_ipv4_and_where_there_is_ipv6_that_too() {
    let config = Config { tcp_bind: vec![":0".parse().unwrap()], ..for_tests() };
    let listeners = Listeners::bind(&config).unwrap();
    let bound = listeners.address(ListenerKind::Tcp).unwrap();
    std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, bound.port())).unwrap();
    if bound.is_ipv6() {
        std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, bound.port())).unwrap();
    }
}

#[tokio::test]
async fn accepted_sockets_have_the_options_of_their_port() {
    let config = Config {
        tcp_keepalive: true,
        tcp_user_timeout: Duration::from_secs(7),
        tcp_send_buffer: Some(100_000),
        ..for_tests()
    };
    let listeners = Listeners::bind(&config).unwrap();
    let address = listeners.address(ListenerKind::Tcp).unwrap();
    let (mut shards, _grpc) = listeners.into_parts();
    // With one shard left every connection is its.
    shards.truncate(1);
    let (listener, _) = shards.remove(0).remove(0);
    let listener = TcpListener::from_std(listener).unwrap();
    let _client = TcpStream::connect(address).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let options = SockRef::from(&socket);
    assert!(socket.nodelay().unwrap());
    assert!(options.keepalive().unwrap());
    assert_eq!(options.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
    assert_eq!(options.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
    assert_eq!(options.send_buffer_size().unwrap(), 200_000, "the kernel doubles it for its own use");
}

#[tokio::test]
async fn clients_are_handed_on_with_a_place_until_told_to_stop() {
    let limits = Limits::new(&Config { max_connections: 2, ..for_tests() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (handed, mut received) = tokio::sync::mpsc::unbounded_channel();
    let of_loop = limits.clone();
    let accepting = tokio::spawn(async move {
        let stop = async { drop(stopped.await) };
        accept(listener, &of_loop, stop, |socket, peer, permit| handed.send((socket, peer, permit)).unwrap()).await;
    });
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    let first = received.recv().await.unwrap();
    let _second = received.recv().await.unwrap();
    assert_eq!(first.1, clients[0].local_addr().unwrap());

    let mut third = TcpStream::connect(address).await.unwrap();
    let ended = tokio::io::AsyncReadExt::read(&mut third, &mut [0; 1]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "closed at once");
    assert_eq!(limits.counts.over_connections.get(), 1);

    drop(first);
    let _fourth = TcpStream::connect(address).await.unwrap();
    let _handed = received.recv().await.unwrap();
    stop.send(()).unwrap();
    accepting.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn accept_errors_never_end_the_loop() {
    let limits = Limits::new(&for_tests());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let (handed, received) = tokio::sync::oneshot::channel();
    let mut handed = Some(handed);
    let next = || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        let listener = &listener;
        async move {
            match call {
                // Out of files for a while, with connections in between that died on their own.
                0..5 => Err(io::Error::from_raw_os_error(libc::EMFILE)),
                5..100 => Err(io::Error::from_raw_os_error(libc::ECONNABORTED)),
                100 => listener.accept().await,
                _ => std::future::pending().await,
            }
        }
    };
    let begun = tokio::time::Instant::now();
    let stop = async { drop(received.await) };
    accept_from(next, &limits, stop, |_, _, _| handed.take().unwrap().send(()).unwrap()).await;
    assert_eq!(limits.counts.accept_errors.get(), 100);
    assert_eq!(limits.counts.accepted.get(), 1);
    assert!(
        begun.elapsed() >= Duration::from_millis(5 + 10 + 20 + 40 + 80),
        "it waits between tries instead of spinning"
    );
}

#[test]
fn waiting_grows_to_a_second_and_errors_of_one_connection_do_not_wait() {
    let out_of = |code| io::Error::from_raw_os_error(code);
    for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EINVAL] {
        let waits: Vec<_> = (0..10).map(|failures| back_off(&out_of(code), failures).unwrap().as_millis()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
    assert_eq!(back_off(&out_of(libc::EMFILE), u32::MAX), Some(Duration::from_secs(1)));
    for code in [libc::ECONNABORTED, libc::EINTR, libc::EPROTO, libc::ENETUNREACH] {
        assert_eq!(back_off(&out_of(code), 0), None);
    }
}
