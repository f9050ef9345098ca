//! What comet counts. Registered once, passed on; every message that is not delivered is in one of these.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::channel::Pushed;
use crate::close::Close;
use crate::message::Push;
use crate::transport::tls::Tls;

/// A label `reason`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    reason: &'static str,
}

/// A label `kind`: of push, `key`, `room` or `all`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    kind: &'static str,
}

/// The handles. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Authenticated connections now.
    pub connections: Gauge,
    /// Connections that finished their transport handshake, ever.
    pub handshakes: Counter,
    /// Connections that authenticated, ever.
    pub authenticated: Counter,
    closed: Family<Reason, Counter>,
    pushes: Family<Kind, Counter>,
    delivered: Counter,
    dropped: Family<Reason, Counter>,
    /// Times that records were missed because this comet had been let go.
    pub holes: Counter,
    /// Bytes that wait for slow sockets.
    pub queue_bytes: Gauge,
    /// Rooms with somebody in them, per shard added up.
    pub rooms: Gauge,
    /// Times that a client asked for a room that it may not enter.
    pub rooms_refused: Counter,
    /// Packets read from clients.
    pub received: Counter,
    to_socket: Histogram,
    /// From an auth packet to its reply, in seconds.
    pub auth: Histogram,
    logic_errors: Family<Kind, Counter>,
    /// Sessions that logic was told of again.
    pub registered: Counter,
    /// Sessions that logic had noted for this comet and nobody here held.
    pub strays: Counter,
    /// Broadcasts with a speed that were sent at once, because too many were on their way.
    pub unpaced: Counter,
    /// Clients still to be closed by a drain.
    pub draining: Gauge,
    /// How long drains took, in seconds.
    pub drain_seconds: Histogram,
    /// Clients closed faster than the rate, because a drain may not take that long.
    pub drain_forced: Counter,
}

impl Metrics {
    /// Registers everything under `imcluster_comet_`.
    pub fn register(metrics: &runtime::Metrics) -> Self {
        let made = Self {
            connections: Gauge::default(),
            handshakes: Counter::default(),
            authenticated: Counter::default(),
            closed: Family::default(),
            pushes: Family::default(),
            delivered: Counter::default(),
            dropped: Family::default(),
            holes: Counter::default(),
            queue_bytes: Gauge::default(),
            rooms: Gauge::default(),
            rooms_refused: Counter::default(),
            received: Counter::default(),
            to_socket: runtime::metrics::latency(),
            auth: runtime::metrics::latency(),
            logic_errors: Family::default(),
            registered: Counter::default(),
            strays: Counter::default(),
            unpaced: Counter::default(),
            draining: Gauge::default(),
            // Half a second to half an hour.
            drain_seconds: Histogram::new(exponential_buckets(0.5, 2.0, 13)),
            drain_forced: Counter::default(),
        };
        for close in Close::ALL {
            drop(made.closed.get_or_create(&Reason { reason: close.label() }));
        }
        let all = made.clone();
        metrics.register("comet", |registry| {
            registry.register("connections", "Authenticated connections", all.connections);
            registry.register("handshakes", "Transport handshakes finished", all.handshakes);
            registry.register("authenticated", "Connections that authenticated", all.authenticated);
            registry.register("closed", "Connections ended, by reason", all.closed);
            registry.register("pushes", "Pushes taken from job, by kind", all.pushes);
            registry.register("delivered", "Messages handed to sockets or their queues", all.delivered);
            registry.register("dropped", "Messages not delivered, by reason", all.dropped);
            registry.register("holes", "Times that this comet was not sent records and told its clients", all.holes);
            registry.register("queue_bytes", "Bytes that wait for slow sockets", all.queue_bytes);
            registry.register("rooms", "Rooms with somebody in them, per shard", all.rooms);
            registry.register("rooms_refused", "Rooms asked for that were not allowed", all.rooms_refused);
            registry.register("received", "Packets read from clients", all.received);
            registry.register("to_socket_seconds", "From job's call to the last socket write", all.to_socket);
            registry.register("auth_seconds", "From an auth packet to its reply", all.auth);
            registry.register("logic_errors", "Calls to logic that failed, by call", all.logic_errors);
            registry.register("registered_sessions", "Sessions that logic was told of again", all.registered);
            registry.register("unpaced", "Broadcasts with a speed that were sent at once", all.unpaced);
            registry.register("stray_sessions", "Sessions that logic had noted and nobody held", all.strays);
            registry.register("draining", "Clients still to be closed by a drain", all.draining);
        });
        metrics.register("drain", |registry| {
            registry.register("seconds", "How long drains took", all.drain_seconds);
            registry.register("forced", "Clients closed faster than the rate, to be done in time", all.drain_forced);
        });
        made
    }

    /// Registers what happens to connections before they have a session.
    pub fn register_entrance(metrics: &runtime::Metrics, limits: &crate::limits::Counts, tls: Option<&Tls>) {
        let (limits, tls) = (limits.clone(), tls.cloned());
        metrics.register("comet", |registry| {
            registry.register("accepted", "Sockets accepted", limits.accepted);
            registry.register("accept_errors", "Accepts that failed", limits.accept_errors);
            registry.register("over_connections", "Closed at once: too many in all", limits.over_connections);
            registry.register("over_handshakes", "Closed at once: too many in a second", limits.over_handshakes);
            registry.register("over_address", "Refused: too many from one address", limits.over_address);
            if let Some(tls) = tls {
                let certificates = tls.certificates;
                let (reloads, errors) = (certificates.reloads.clone(), certificates.reload_errors.clone());
                registry.register("tls_reloads", "Changed certificates put to use", reloads);
                registry.register("tls_reload_errors", "Changed certificates of no use", errors);
            }
        });
    }

    /// A connection ended.
    pub fn closed(&self, reason: Close) {
        self.closed.get_or_create(&Reason { reason: reason.label() }).inc();
    }

    /// How many connections ended so.
    pub fn closed_count(&self, reason: Close) -> u64 {
        self.closed.get_or_create(&Reason { reason: reason.label() }).get()
    }

    /// A push was taken from job.
    pub fn push(&self, kind: &'static str) {
        self.pushes.get_or_create(&Kind { kind }).inc();
    }

    /// A call to logic failed.
    pub fn logic_error(&self, call: &'static str) {
        self.logic_errors.get_or_create(&Kind { kind: call }).inc();
    }

    /// Messages that were not delivered.
    pub fn dropped(&self, reason: &'static str, messages: u64) {
        if messages > 0 {
            self.dropped.get_or_create(&Reason { reason }).inc_by(messages);
        }
    }

    /// How many messages were not delivered for that reason.
    pub fn dropped_count(&self, reason: &'static str) -> u64 {
        self.dropped.get_or_create(&Reason { reason }).get()
    }

    /// What a fan-out round did.
    pub fn pushed(&self, pushed: Pushed) {
        self.delivered.inc_by(pushed.delivered);
        self.dropped("slow", pushed.dropped);
    }

    /// These pushes have been written to everyone they are for.
    pub fn written(&self, pushes: &[Arc<Push>]) {
        for push in pushes {
            self.to_socket.observe(push.received.elapsed().as_secs_f64());
        }
    }
}
