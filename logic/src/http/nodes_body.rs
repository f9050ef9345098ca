//! `NodesReply` as JSON: goim's names in goim's order, zero values left out.

use proto::logic::{Backoff, NodesReply};
use serde::Serialize;

/// The JSON of a node list.
#[derive(Debug, Serialize)]
pub struct NodesBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    domain: String,
    #[serde(skip_serializing_if = "zero")]
    tcp_port: i32,
    #[serde(skip_serializing_if = "zero")]
    ws_port: i32,
    #[serde(skip_serializing_if = "zero")]
    wss_port: i32,
    #[serde(skip_serializing_if = "zero")]
    heartbeat: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff: Option<BackoffBody>,
    #[serde(skip_serializing_if = "zero")]
    heartbeat_max: i32,
    #[serde(skip_serializing_if = "zero")]
    tcps_port: i32,
}

#[derive(Debug, Serialize)]
struct BackoffBody {
    #[serde(skip_serializing_if = "zero")]
    max_delay: i32,
    #[serde(skip_serializing_if = "zero")]
    base_delay: i32,
    #[serde(skip_serializing_if = "zero_float")]
    factor: f32,
    #[serde(skip_serializing_if = "zero_float")]
    jitter: f32,
}

fn zero(value: &i32) -> bool {
    *value == 0
}

fn zero_float(value: &f32) -> bool {
    *value == 0.0
}

impl From<NodesReply> for NodesBody {
    fn from(reply: NodesReply) -> Self {
        let NodesReply { domain, tcp_port, ws_port, wss_port, heartbeat, nodes, backoff, heartbeat_max, tcps_port } =
            reply;
        let backoff = backoff.map(|Backoff { max_delay, base_delay, factor, jitter }| BackoffBody {
            max_delay,
            base_delay,
            factor,
            jitter,
        });
        Self { domain, tcp_port, ws_port, wss_port, heartbeat, nodes, backoff, heartbeat_max, tcps_port }
    }
}
