//! Settings that the cluster shows, once: an ImCluster's `config` has them as its fields, the operator writes them to
//! the pods' files, the services read them. `Fixed` holds what a change of restarts pods, `Live` what a running
//! process takes up. Each is named as the service's flag is, in camelCase, as a file's `[imcluster]` table has it.
//!
//! Nothing has a value here: what is not set is as the service has it (`--help`), and the comments say how that is.

use schemars::{JsonSchema, Schema};
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
#[schemars(transform = described_by_its_field)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// For collectors.
    Json,
}

/// Says of every setting that changing it restarts pods.
fn restarts(schema: &mut Schema) {
    add_to_descriptions(schema, "A change restarts the pods.");
}

/// Says of every setting that changing it does not.
fn reloads(schema: &mut Schema) {
    add_to_descriptions(schema, "A change is taken up without a restart.");
}

/// Keeps the description of an enum from hiding that of the field: of an optional enum a CRD shows only one.
fn described_by_its_field(schema: &mut Schema) {
    schema.remove("description");
}

fn add_to_descriptions(schema: &mut Schema, sentence: &str) {
    let properties = schema.get_mut("properties").and_then(|properties| properties.as_object_mut());
    for property in properties.into_iter().flat_map(|properties| properties.values_mut()) {
        if let Some(serde_json::Value::String(description)) = property.get_mut("description") {
            description.push(' ');
            description.push_str(sentence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptions<T: JsonSchema>() -> Vec<(String, String)> {
        let schema = schemars::schema_for!(T);
        let properties = schema.get("properties").and_then(|properties| properties.as_object()).unwrap();
        let text = |value: &serde_json::Value| value["description"].as_str().unwrap_or_default().to_owned();
        properties.iter().map(|(name, property)| (name.clone(), text(property))).collect()
    }

    #[test]
    fn every_setting_says_whether_a_change_restarts_pods() {
        let fixed = [descriptions::<comet::Fixed>(), descriptions::<logic::Fixed>(), descriptions::<job::Fixed>()];
        for (name, text) in fixed.concat() {
            assert!(text.ends_with(" A change restarts the pods."), "{name}: {text}");
        }
        let live = [descriptions::<comet::Live>(), descriptions::<logic::Live>(), descriptions::<job::Live>()];
        for (name, text) in live.concat() {
            assert!(text.ends_with(" A change is taken up without a restart."), "{name}: {text}");
        }
    }

    #[test]
    fn a_setting_is_either_fixed_or_live() {
        let pairs = [
            (descriptions::<comet::Fixed>(), descriptions::<comet::Live>()),
            (descriptions::<logic::Fixed>(), descriptions::<logic::Live>()),
            (descriptions::<job::Fixed>(), descriptions::<job::Live>()),
        ];
        for (fixed, live) in pairs {
            assert!(fixed.iter().all(|(name, _)| live.iter().all(|(other, _)| name != other)), "{fixed:?} {live:?}");
        }
    }

    #[test]
    fn what_is_not_set_is_not_written() {
        assert_eq!(serde_json::to_string(&comet::Fixed::default()).unwrap(), "{}");
        let live = comet::Live { queue_bytes: Some(65536), ..comet::Live::default() };
        assert_eq!(toml::to_string(&live).unwrap(), "queueBytes = 65536\n");
        assert_eq!(toml::from_str::<comet::Live>("queueBytes = 65536").unwrap(), live);
    }
}
