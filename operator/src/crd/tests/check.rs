//! What an API server says of an object: the schema's bounds in the words of kube-apiserver, and the CEL rules. Only
//! what our schema uses; the last word is a real API server's, which gets the same files.

use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use serde_json::{Map, Value};

/// An API server that has the CRD.
pub(super) struct Server {
    schema: Value,
    rules: CompiledSchema,
    validator: Validator,
}

impl Server {
    pub(super) fn new(schema: Value) -> Self {
        Self { rules: compile_schema(&schema), schema, validator: Validator::new() }
    }

    /// The object as it is stored.
    pub(super) fn stored(&self, object: &Value) -> Value {
        defaulted(&self.schema, object)
    }

    /// Everything that is wrong with the stored object; with `old`, with changing that to it.
    pub(super) fn problems(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, property) in self.schema["properties"].as_object().into_iter().flatten() {
            node(property, name, object.get(name), &self.schema, &mut problems);
        }
        // As in the API server, rules are only asked of what has the right shape.
        if problems.is_empty() {
            problems = self.broken_rules(object, old);
        }
        problems
    }

    /// The same of a value below the root, whose schema this server has.
    pub(super) fn problems_of_node(&self, path: &str, value: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        node(&self.schema, path, Some(value), &Value::Null, &mut problems);
        problems.extend(self.broken_rules(value, None));
        problems
    }

    fn broken_rules(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let errors = self.validator.validate_compiled(&self.rules, object, old).err();
        let errors = errors.iter().flat_map(|errors| errors.iter());
        errors.map(|error| format!("{}: Invalid value: {}", error.field_path, error.message)).collect()
    }
}

/// The object as it is stored: nulls gone, defaults filled in, those below a default too.
fn defaulted(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut stored = Map::new();
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                let below = [&schema["properties"][name], &schema["additionalProperties"]];
                let below = below.into_iter().find(|below| below.is_object()).unwrap_or(&Value::Null);
                stored.insert(name.clone(), defaulted(below, value));
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if let (Some(default), false) = (property.get("default"), stored.contains_key(name)) {
                    stored.insert(name.clone(), defaulted(property, default));
                }
            }
            Value::Object(stored)
        }
        Value::Array(values) => values.iter().map(|value| defaulted(&schema["items"], value)).collect(),
        value => value.clone(),
    }
}

fn node(schema: &Value, path: &str, value: Option<&Value>, parent: &Value, problems: &mut Vec<String>) {
    let Some(value) = value else {
        let name = path.rsplit('.').next().unwrap_or(path);
        if parent["required"].as_array().is_some_and(|required| required.iter().any(|required| required == name)) {
            problems.push(format!("{path}: Required value"));
        }
        return;
    };
    let fits = match schema["type"].as_str() {
        _ if schema["x-kubernetes-int-or-string"] == true => value.is_i64() || value.is_string(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        other => panic!("{path}: a type that this check does not know: {other:?}"),
    };
    if !fits {
        problems.push(format!("{path} in body must be of type {}", schema["type"].as_str().unwrap_or("int or string")));
        return;
    }
    match value {
        Value::Object(fields) => object(schema, path, fields, problems),
        Value::Array(values) => list(schema, path, values, problems),
        Value::String(text) => string(schema, path, text, problems),
        Value::Number(number) => bounds(schema, path, number.as_f64().unwrap_or(f64::NAN), problems),
        Value::Bool(_) | Value::Null => {}
    }
}

fn object(schema: &Value, path: &str, fields: &Map<String, Value>, problems: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        node(property, &format!("{path}.{name}"), fields.get(name), schema, problems);
    }
    if schema["additionalProperties"].is_object() {
        for (name, value) in fields {
            node(&schema["additionalProperties"], &format!("{path}.{name}"), Some(value), schema, problems);
        }
    }
    if schema["maxProperties"].as_u64().is_some_and(|most| fields.len() as u64 > most) {
        problems.push(format!("{path}: Too many: must have at most {} items", schema["maxProperties"]));
    }
}

fn list(schema: &Value, path: &str, values: &[Value], problems: &mut Vec<String>) {
    for (index, value) in values.iter().enumerate() {
        node(&schema["items"], &format!("{path}[{index}]"), Some(value), schema, problems);
    }
    if schema["minItems"].as_u64().is_some_and(|least| (values.len() as u64) < least) {
        problems.push(format!("{path} in body should have at least {} items", schema["minItems"]));
    }
    if schema["maxItems"].as_u64().is_some_and(|most| values.len() as u64 > most) {
        problems.push(format!("{path}: Too many: {}: must have at most {} items", values.len(), schema["maxItems"]));
    }
    let key = |value: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(value.clone()),
        Some("map") => Some(value[schema["x-kubernetes-list-map-keys"][0].as_str().unwrap_or_default()].clone()),
        _ => None,
    };
    for (index, value) in values.iter().enumerate() {
        if key(value).is_some_and(|own| values[..index].iter().any(|other| key(other) == Some(own.clone()))) {
            problems.push(format!("{path}[{index}]: Duplicate value: {value}"));
        }
    }
}

fn string(schema: &Value, path: &str, text: &str, problems: &mut Vec<String>) {
    let length = text.chars().count() as u64;
    if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
        problems.push(format!("{path}: Too long: may not be more than {} bytes", schema["maxLength"]));
    }
    if schema["minLength"].as_u64().is_some_and(|least| length < least) {
        problems.push(format!("{path} in body should be at least {} chars long", schema["minLength"]));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !regex::Regex::new(pattern).unwrap().is_match(text)
    {
        problems.push(format!("{path} in body should match '{pattern}'"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.iter().any(|value| value == text)
    {
        let values: Vec<String> = values.iter().filter(|value| value.is_string()).map(ToString::to_string).collect();
        problems.push(format!("{path}: Unsupported value: {text:?}: supported values: {}", values.join(", ")));
    }
}

fn bounds(schema: &Value, path: &str, number: f64, problems: &mut Vec<String>) {
    if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
        problems.push(format!("{path} in body should be greater than or equal to {least}"));
    }
    if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
        problems.push(format!("{path} in body should be less than or equal to {most}"));
    }
}

/// Every default with its path and its schema, which has none any more.
pub(super) fn defaults(schema: &Value) -> Vec<(String, Value, Value)> {
    fn without_defaults(schema: &Value) -> Value {
        match schema {
            Value::Object(fields) => {
                let fields = fields.iter().filter(|(name, _)| *name != "default");
                fields.map(|(name, value)| (name.clone(), without_defaults(value))).collect()
            }
            schema => schema.clone(),
        }
    }
    fn walk(path: &str, schema: &Value, found: &mut Vec<(String, Value, Value)>) {
        if let Some(default) = schema.get("default") {
            found.push((path.to_owned(), default.clone(), without_defaults(schema)));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, found);
        }
        for (below, sign) in [("items", "[]"), ("additionalProperties", ".*")] {
            if schema[below].is_object() {
                walk(&format!("{path}{sign}"), &schema[below], found);
            }
        }
    }
    let mut found = Vec::new();
    walk("", schema, &mut found);
    found
}

/// What all rules of the schema say.
pub(super) fn messages(schema: &Value) -> Vec<String> {
    let own = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let own = own.filter_map(|rule| rule["message"].as_str()).map(str::to_owned);
    let below = schema["properties"].as_object().into_iter().flatten().map(|(_, property)| property);
    let below = below.chain([&schema["items"], &schema["additionalProperties"]]).filter(|schema| schema.is_object());
    own.chain(below.flat_map(messages)).collect()
}
