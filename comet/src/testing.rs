//! What this crate's tests start with.

use std::rc::Rc;
use std::sync::Arc;

use clap::Parser;
use proto::Mid;
use tokio::sync::mpsc;

use crate::channel::{Channel, QueueLimits};
use crate::config::Config;
use crate::logic::Logic;
use crate::message::Variant;
use crate::metrics::Metrics;
use crate::shard::{self, Command, Inbox, Shard};
use crate::shared::Shared;
use crate::transport::TransportSettings;
use crate::wire::Wire;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    comet: Config,
}

/// The only shard of a comet with this logic. Needs a `LocalSet`.
pub fn shard(logic: Arc<dyn Logic>) -> Rc<Shard> {
    shard_and_inbox(logic).0
}

/// The same, and what it is to be run with.
pub fn shard_and_inbox(logic: Arc<dyn Logic>) -> (Rc<Shard>, mpsc::UnboundedReceiver<Command>) {
    let (shared, inbox) = shared(logic);
    let (commands, count) = inbox.into_parts();
    (Shard::new(0, shared, count), commands)
}

/// A comet with this logic, and what its only shard would be run with.
pub fn shared(logic: Arc<dyn Logic>) -> (Arc<Shared>, Inbox) {
    let config = Line::parse_from(["comet"]).comet;
    let (handle, inbox) = shard::handle();
    let metrics = Metrics::register(&runtime::Process::quiet().metrics);
    let transport = TransportSettings::new(&config).unwrap();
    (Arc::new(Shared::new(config, logic, metrics, transport, vec![handle])), inbox)
}

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
