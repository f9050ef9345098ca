//! Settings of comet that the cluster shows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DURATION, NETWORK};

/// What comet reads when it starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::restarts)]
pub struct Fixed {
    /// What every process has.
    #[serde(flatten)]
    pub process: super::Fixed,
    /// Threads that hold connections. Default: one per core that the pod may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub shards: Option<i32>,
    /// Find dead clients between heartbeats by TCP keepalive: after 60 s of silence 4 probes, 15 s apart. Default:
    /// false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<bool>,
    /// Close a connection when what was sent stays unacknowledged this long, as a Go duration; `0s` = the kernel's
    /// rule. Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub tcp_user_timeout: Option<String>,
    /// Bytes the kernel may hold per connection on the way out. Default: the kernel decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4096, max = 67_108_864))]
    pub tcp_send_buffer: Option<i64>,
    /// Bytes the kernel may hold per connection on the way in. Default: the kernel decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4096, max = 67_108_864))]
    pub tcp_receive_buffer: Option<i64>,
    /// How often room counts are reported to logic, as a Go duration. Default: 3s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub online_interval: Option<String>,
    /// Networks whose word on the client's address is taken: X-Forwarded-For, and the PROXY header with
    /// `proxyProtocol`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64), regex(pattern = NETWORK)))]
    pub trusted_proxies: Vec<String>,
    /// Every connection from `trustedProxies` begins with a PROXY header, version 1 or 2, on all client ports. Default:
    /// false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<bool>,
}

/// What comet takes up while it runs. Limits hold for connections that come after the change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::reloads)]
pub struct Live {
    /// What every process has.
    #[serde(flatten)]
    pub process: super::Live,
    /// Connections of one comet at a time; what comes beyond is closed. 0 = as many as it may have open files, less a few
    /// for everything else. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000_000))]
    pub max_connections: Option<i64>,
    /// Connections of one comet at a time from one client address; 0 = no limit. Behind a proxy it needs
    /// `trustedProxies`. Default: 10000 for addresses of the internet, no limit for those of private networks, which are
    /// proxies more often than clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000_000))]
    pub max_per_address: Option<i64>,
    /// New connections per second and comet, a second's worth at once; what comes beyond is closed. 0 = no limit.
    /// Default: 20000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub handshakes_per_second: Option<i64>,
    /// From accept to the auth reply, as a Go duration: TLS, WebSocket upgrade, auth packet and logic's answer must fit
    /// in it. Default: 5s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub handshake_timeout: Option<String>,
    /// Packets a client may send per second, a second's worth at once; 0 = no limit. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub frames_per_second: Option<i64>,
    /// Bytes a client may send per second, a second's worth at once; 0 = no limit. Default: 262144.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_000_000_000i64))]
    pub bytes_per_second: Option<i64>,
    /// Rooms one connection may be in. Default: 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub rooms_per_connection: Option<i64>,
    /// Bytes that may wait for one connection that does not read. Default: 262144.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8192, max = 1_073_741_824))]
    pub queue_bytes: Option<i64>,
    /// Bytes that may wait for all connections of one comet together. Default: 536870912.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8192, max = 1_099_511_627_776i64))]
    pub queue_bytes_total: Option<i64>,
}
