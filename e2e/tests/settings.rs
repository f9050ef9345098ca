//! The settings that the cluster shows are settings that the services have, over the whole of their bounds.

use std::ffi::OsString;

use runtime::config::{self, FileKeys};
use runtime::settings;
use schemars::{JsonSchema, Schema, schema_for};
use serde_json::Value;

#[test]
fn comet_takes_every_setting_that_the_cluster_shows() {
    takes::<comet::Config>("comet", &schemas::<settings::comet::Fixed, settings::comet::Live>(), "");
}

#[test]
fn logic_takes_every_setting_that_the_cluster_shows() {
    let schemas = schemas::<settings::logic::Fixed, settings::logic::Live>();
    takes::<logic::Config>("logic", &schemas, "auth = 'trust'\npushAuth = 'none'\n");
}

#[test]
fn job_takes_every_setting_that_the_cluster_shows() {
    takes::<job::Config>("job", &schemas::<settings::job::Fixed, settings::job::Live>(), "");
}

fn schemas<F: JsonSchema, L: JsonSchema>() -> [Schema; 2] {
    [schema_for!(F), schema_for!(L)]
}

/// Loads a file with all settings at one end of their bounds, and one with all at the other.
fn takes<C: FileKeys>(service: &'static str, schemas: &[Schema; 2], needed: &str) {
    for is_most in [false, true] {
        let mut file = format!("[imcluster]\n{needed}");
        let properties = schemas.iter().flat_map(|schema| schema.get("properties").and_then(Value::as_object));
        for (name, property) in properties.flatten() {
            file.push_str(&format!("{name} = {}\n", sample(name, property, is_most)));
        }
        let path = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        std::fs::write(path.path(), &file).expect("it can be written");
        let argv = ["--config".into(), OsString::from(path.path())];
        let loaded = config::load::<C>(service, "", argv, &|_| None);
        let loaded = loaded.unwrap_or_else(|error| panic!("{error}\n{file}"));
        assert!(loaded.notices.is_empty(), "{:?}\n{file}", loaded.notices);
    }
}

/// A value that the schema lets through, as TOML.
fn sample(name: &str, property: &Value, is_most: bool) -> String {
    let is = |kind: &str| property["type"] == kind || property["type"][0] == kind;
    let end = |bounds: [&str; 2]| property[bounds[usize::from(is_most)]].to_string();
    if is("integer") || is("number") {
        return end(["minimum", "maximum"]);
    }
    if is("boolean") {
        return is_most.to_string();
    }
    if is("array") {
        return "['10.0.0.0/8', '2001:db8::7']".to_owned();
    }
    match name {
        "log" => "'info,comet=debug'".to_owned(),
        "otlpEndpoint" => "'http://collector:4317'".to_owned(),
        "receiveUrl" => "'https://hook.example/upstream'".to_owned(),
        "logFormat" => ["'plain'", "'json'"][usize::from(is_most)].to_owned(),
        "midPolicy" => ["'refuse'", "'evict-oldest'"][usize::from(is_most)].to_owned(),
        _ => {
            let pattern = property["pattern"].as_str().unwrap_or_else(|| panic!("{name}: {property}"));
            assert!(pattern.contains("ms|s|m|h"), "{name}: a duration, or say here what it may be");
            ["'1m500ms'", "'2h'"][usize::from(is_most)].to_owned()
        }
    }
}
