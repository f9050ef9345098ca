//! A field of the schema as the reference page shows it.

use serde_json::Value;

/// One field.
pub(super) struct Field {
    /// From the section's object down: `drain.delaySeconds`, `zones[].name`, `annotations.*`.
    pub path: String,
    /// What it holds, in words.
    pub kind: String,
    /// It must be there.
    pub required: bool,
    /// What it is when it is not set, as YAML.
    pub default: Option<String>,
    /// What it may be.
    pub bounds: Vec<String>,
    /// What it is for.
    pub description: String,
    /// What is refused here, in the words of the API server.
    pub refused: Vec<String>,
}

/// Every field below an object, in the order of their names; what is below those named `elsewhere` is left out.
pub(super) fn below(schema: &Value, elsewhere: &[&str]) -> Vec<Field> {
    let mut fields = Vec::new();
    walk(schema, "", elsewhere, &mut fields);
    fields
}

fn walk(schema: &Value, prefix: &str, elsewhere: &[&str], fields: &mut Vec<Field>) {
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|required| required.iter().any(|required| required == name))
    };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        fields.push(Field {
            kind: kind(property),
            required: required(name),
            // The defaults of an object are those of its fields.
            default: property.get("default").filter(|default| !default.is_object()).map(ToString::to_string),
            bounds: bounds(property),
            description: property["description"].as_str().unwrap_or_default().to_owned(),
            refused: if elsewhere.contains(&path.as_str()) { Vec::new() } else { rules_of_node(property) },
            path: path.clone(),
        });
        if !elsewhere.contains(&path.as_str()) {
            walk(property, &format!("{path}."), elsewhere, fields);
            walk(&property["items"], &format!("{path}[]."), elsewhere, fields);
            walk(&property["additionalProperties"], &format!("{path}.*."), elsewhere, fields);
        }
    }
}

fn kind(schema: &Value) -> String {
    if schema["x-kubernetes-int-or-string"] == true {
        return "quantity".to_owned();
    }
    match schema["type"].as_str().unwrap_or("any") {
        "array" => format!("list of {}", plural(&schema["items"])),
        "object" if schema["x-kubernetes-preserve-unknown-fields"] == true => "free object".to_owned(),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map of {}", plural(&schema["additionalProperties"]))
        }
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        kind => kind.to_owned(),
    }
}

fn plural(schema: &Value) -> String {
    match kind(schema).as_str() {
        "quantity" => "quantities".to_owned(),
        kind => format!("{kind}s"),
    }
}

fn bounds(schema: &Value) -> Vec<String> {
    let mut bounds = Vec::new();
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`"));
        bounds.push(values.collect::<Vec<_>>().join(", "));
    }
    for (least, most, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " elements"),
        ("minProperties", "maxProperties", " keys"),
    ] {
        match (number(&schema[least]), number(&schema[most])) {
            (Some(least), Some(most)) if least == most => bounds.push(format!("{least}{unit}")),
            (Some(least), Some(most)) => bounds.push(format!("{least} to {most}{unit}")),
            (Some(least), None) => bounds.push(format!("at least {least}{unit}")),
            (None, Some(most)) => bounds.push(format!("at most {most}{unit}")),
            (None, None) => {}
        }
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        bounds.push(format!("`{pattern}`"));
    }
    for inner in [&schema["items"], &schema["additionalProperties"]] {
        if inner["properties"].is_null() && !inner.is_null() {
            let inner: Vec<String> = self::bounds(inner).into_iter().map(|bound| format!("each {bound}")).collect();
            bounds.extend(inner);
        }
    }
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => bounds.push("each once".to_owned()),
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
            bounds.push(format!("each `{}` once", keys.collect::<Vec<_>>().join("`, `")));
        }
        _ => {}
    }
    bounds
}

/// Whole numbers are written without a fraction, as users write them.
fn number(value: &Value) -> Option<String> {
    let number = value.as_f64()?;
    Some(if number.fract() == 0.0 { format!("{number:.0}") } else { number.to_string() })
}

/// The messages of the rules on this object itself.
pub(super) fn rules(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.filter_map(|rule| rule["message"].as_str()).map(str::to_owned).collect()
}

/// Those of a field, and of the elements when it is a list or map.
fn rules_of_node(schema: &Value) -> Vec<String> {
    [schema, &schema["items"], &schema["additionalProperties"]].into_iter().flat_map(rules).collect()
}

/// The messages of all rules of a schema.
#[cfg(test)]
pub(super) fn all_rules(schema: &Value) -> Vec<String> {
    let below = schema["properties"].as_object().into_iter().flatten().map(|(_, property)| property);
    let inner = [&schema["items"], &schema["additionalProperties"]];
    let below = below.chain(inner).filter(|schema| schema.is_object()).flat_map(all_rules);
    rules(schema).into_iter().chain(below).collect()
}
