//! Bounds that several fields share, and schemas of what is not ours: quantities, conditions, free-form objects.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A DNS label: names of namespaces, zones, Services.
pub(super) const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A DNS subdomain: names of Secrets and most other objects.
pub(super) const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A host and a port: `kafka-0.kafka:9092`, `10.0.0.7:6379`, `[2001:db8::7]:6379`.
pub(super) const ADDRESS: &str = r"^(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z]([-_.0-9A-Za-z]*[0-9A-Za-z])?):[1-9][0-9]{0,4}$";
/// An image reference without its tag and digest.
pub(super) const REPOSITORY: &str =
    r"^[0-9A-Za-z]([-_.0-9A-Za-z]*[0-9A-Za-z])?(:[1-9][0-9]{0,4})?(/[0-9a-z]+((\.|_|__|-+)[0-9a-z]+)*)*$";
/// A URL of a web server, without a password in it.
pub(super) const WEB: &str = r"^https?://[^/@?#\s]+([/?][^#\s]*)?$";
/// One of several, which a comma would separate.
pub(super) const NO_COMMA: &str = r"^[^,]+$";
/// A topic or consumer group of Kafka.
pub(super) const KAFKA_NAME: &str = r"^[-._0-9A-Za-z]+$";
/// A Kubernetes quantity.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// Keeps the description of an enum from hiding that of the field: of an optional enum a CRD shows only one.
pub(super) fn described_by_its_field(schema: &mut Schema) {
    schema.remove("description");
}

/// An object whose fields are not ours to name.
pub(super) fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true })
}

/// Labels of an object.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": r"^([0-9A-Za-z]([-._0-9A-Za-z]*[0-9A-Za-z])?)?$",
        },
    })
}

/// Annotations of an object.
pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 16384 },
    })
}

/// Requests and limits of a container, as Kubernetes writes them.
pub(super) fn resources(_: &mut SchemaGenerator) -> Schema {
    let quantities = |what: &str| {
        serde_json::json!({
            "type": "object",
            "description": what,
            "maxProperties": 16,
            "additionalProperties": {
                "anyOf": [{ "type": "integer" }, { "type": "string" }],
                "maxLength": 32,
                "pattern": QUANTITY,
                "x-kubernetes-int-or-string": true,
            },
        })
    };
    json_schema!({
        "type": "object",
        "nullable": true,
        "properties": {
            "limits": quantities("The most a container may use, such as `memory: 512Mi`."),
            "requests": quantities("What is set aside for a container when it is placed, such as `cpu: 500m`."),
        },
    })
}

/// `metav1.Condition`, with the bounds that Kubernetes gives it.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "What it is about, such as `Ready`.",
                    "maxLength": 316,
                    "pattern": r"^[A-Za-z]([-._0-9A-Za-z]*[0-9A-Za-z])?$",
                },
                "status": { "type": "string", "description": "Whether it holds.", "enum": ["True", "False", "Unknown"] },
                "reason": {
                    "type": "string",
                    "description": "Why, in one word for programs.",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": { "type": "string", "description": "Why, for people.", "maxLength": 32768 },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When `status` last changed.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The generation of the spec that this was said of.",
                },
            },
        },
    })
}
