//! Settings of job that the cluster shows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DURATION;

/// What job reads when it starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::restarts)]
pub struct Fixed {
    /// What every process has.
    #[serde(flatten)]
    pub process: super::Fixed,
    /// A comet that is owed more bytes than this is let go until it answers: what it is owed is dropped and counted.
    /// Default: 67108864.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 65536, max = 68_719_476_736i64))]
    pub comet_backlog: Option<i64>,
    /// A comet that owes an answer for this long, as a Go duration, is let go until it answers. Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub comet_stall: Option<String>,
}

/// What job takes up while it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = super::reloads)]
pub struct Live {
    /// What every process has.
    #[serde(flatten)]
    pub process: super::Live,
    /// Merge at most so many packets of a room into one. Default: 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_count: Option<i64>,
    /// How long a room that has just sent gathers packets, as a Go duration. The first packet of a quiet room never
    /// waits. Default: 20ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION))]
    pub batch_window: Option<String>,
    /// Merge at most so many bytes of a room into one. Default: 65536.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub batch_bytes: Option<i64>,
}
