//! Settings that the cluster shows, once: an ImCluster's `config` has them as its fields, the operator writes them to
//! the pods' files, the services read them. `Fixed` holds what a change of restarts pods, `Live` what a running
//! process takes up. Each is named as the service's flag is, in camelCase, as a file's `[imcluster]` table has it.
//!
//! Nothing has a value here: what is not set is as the service has it (`--help`), and the comments say how that is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod comet;
pub mod job;
pub mod logic;

/// A duration as Go writes it: `500ms`, `5s`, `1h30m`.
const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$";
/// An address or a network: `10.0.0.7`, `10.0.0.0/8`, `2001:db8::/32`.
const NETWORK: &str = r"^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$";

/// What every process reads when it starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fixed {
    /// Log as `plain` lines or as `json` objects. Default: plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// Send traces to this OTLP/gRPC collector, such as `http://otel-collector.monitoring:4317`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^\s]+$"))]
    pub otlp_endpoint: Option<String>,
    /// The share of pushes that are traced, 0 to 1. Default: 0.01.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub trace_ratio: Option<f64>,
}

/// What every process takes up while it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// What to log: a level, or directives such as `info,comet=debug`. Default: info.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub log: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Plain,
    /// For collectors.
    Json,
}
