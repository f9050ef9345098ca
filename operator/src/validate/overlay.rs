//! The free-form parts of a spec, read as what they are: a pod template, and settings laid over others.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::Invalid;

/// Settings that belong to the pod's shape: the operator and the probes count on them.
const OF_THE_POD: [&str; 5] = ["admin", "annotations", "config", "host", "live"];

/// The pod template that a user lays over ours.
pub(super) fn pod_template(field: &str, given: Option<&Value>) -> Result<PodTemplateSpec, Invalid> {
    let Some(given) = given.filter(|given| !given.is_null()) else {
        return Ok(PodTemplateSpec::default());
    };
    let template: PodTemplateSpec = serde_json::from_value(given.clone())
        .map_err(|error| Invalid::spec(field, format!("expected a pod template ({error})")))?;
    let known = serde_json::to_value(&template).map_err(|error| Invalid::spec(field, error.to_string()))?;
    if let Some(path) = lost(given, &known) {
        return Err(Invalid::spec(format!("{field}.{path}"), "is no field of a pod template in Kubernetes 1.33"));
    }
    let pod = template.spec.iter();
    let containers = pod.flat_map(|pod| pod.containers.iter().chain(pod.init_containers.iter().flatten()));
    if containers.into_iter().any(|container| container.name.is_empty()) {
        return Err(Invalid::spec(field, "every container needs a name: what has ours is merged, others are added"));
    }
    Ok(template)
}

/// The first path in `given` that `kept` has not; what is empty may be left out.
fn lost(given: &Value, kept: &Value) -> Option<String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => given.iter().find_map(|(key, value)| match kept.get(key) {
            Some(kept) => lost(value, kept).map(|rest| join(key, &rest)),
            None => (!is_empty(value)).then(|| key.clone()),
        }),
        (Value::Array(given), Value::Array(kept)) => given
            .iter()
            .zip(kept)
            .enumerate()
            .find_map(|(index, (given, kept))| lost(given, kept).map(|rest| join(&index.to_string(), &rest))),
        _ => None,
    }
}

fn join(key: &str, rest: &str) -> String {
    format!("{key}.{rest}")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// JSON as TOML; `None` for what TOML cannot say.
pub(super) fn toml(value: &Value) -> Option<toml::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64()?.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => toml::Value::Array(values.iter().map(toml).collect::<Option<_>>()?),
        Value::Object(fields) => toml::Value::Table(table(fields)?),
    })
}

/// An object as a table; `None` when a value in it is none of TOML's.
pub(super) fn table(fields: &serde_json::Map<String, Value>) -> Option<toml::Table> {
    fields.iter().map(|(key, value)| Some((key.clone(), toml(value)?))).collect()
}

/// Lays `overrides` over a file whose `[imcluster]` table holds `decided` and `typed`, and takes what they set out of
/// the live settings, which would win otherwise.
pub(super) fn settings(
    field: &str,
    decided: toml::Table,
    typed: toml::Table,
    live: &mut toml::Table,
    overrides: Option<&Value>,
) -> Result<toml::Table, Invalid> {
    let mut ours = typed;
    let reserved: Vec<String> = decided.keys().map(|key| plain(key)).chain(OF_THE_POD.map(str::to_owned)).collect();
    ours.extend(decided);
    let mut file = toml::Table::new();
    for (key, value) in given(field, overrides)? {
        match value {
            toml::Value::Table(given) if key.eq_ignore_ascii_case("imcluster") => {
                for (key, value) in given {
                    let name = plain(&key);
                    if reserved.contains(&name) {
                        let why =
                            "is decided by the cluster, the spec has a field for what can be chosen: leave it out";
                        return Err(Invalid::spec(format!("{field}.imcluster.{key}"), why));
                    }
                    ours.retain(|known, _| plain(known) != name);
                    live.retain(|known, _| plain(known) != name);
                    ours.insert(key, value);
                }
            }
            value => drop(file.insert(key, value)),
        }
    }
    file.insert("imcluster".to_owned(), ours.into());
    Ok(file)
}

fn given(field: &str, overrides: Option<&Value>) -> Result<toml::Table, Invalid> {
    let refused = |why: &str| Err(Invalid::spec(field, why));
    match overrides {
        None | Some(Value::Null) => Ok(toml::Table::new()),
        Some(Value::Object(fields)) => {
            table(fields).map_or_else(|| refused("a file of settings cannot say null: leave such fields out"), Ok)
        }
        Some(_) => refused("expected an object, as the configuration file has it, such as imcluster: {log: debug}"),
    }
}

/// As the services compare names of settings.
pub(super) fn plain(name: &str) -> String {
    name.replace(['-', '_', '.'], "").to_ascii_lowercase()
}
