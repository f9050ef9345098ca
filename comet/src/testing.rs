//! What this crate's tests start with.

use std::rc::Rc;
use std::sync::Arc;

use proto::Mid;

use crate::channel::{Channel, QueueLimits};
use crate::message::Variant;
use crate::wire::Wire;

/// A channel over a real socket whose other end is read by nobody. Needs a runtime.
pub fn channel(key: &str) -> Rc<Channel> {
    Rc::new(Channel::new(key.into(), Mid(0), Variant::GoimTcp, 0, vec![], socket().0, limits(usize::MAX)))
}

/// Limits of so many bytes a connection.
pub fn limits(connection: usize) -> Arc<QueueLimits> {
    Arc::new(QueueLimits { connection: connection.into(), total: (usize::MAX / 2).into(), used: Default::default() })
}

/// A connected pair: our end, and the client's.
pub fn socket() -> (Wire, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    (Wire::new(tokio::net::TcpStream::from_std(server).unwrap(), None), client)
}
