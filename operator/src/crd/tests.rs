//! The CRD against the files in `fixtures/`: what an API server would say, said here. The same files go to a real one
//! in e2e.

mod check;

use std::path::{Path, PathBuf};

use super::*;

/// One file of `fixtures/`: an ImCluster, or one and what it is changed to.
struct Fixture {
    path: PathBuf,
    comment: String,
    documents: Vec<Value>,
}

fn fixtures(kind: &str) -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(kind);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Fixture {
    let text = std::fs::read_to_string(&path).unwrap();
    let comment = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default().to_owned();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert!(matches!(documents.len(), 1 | 2), "{}: one document, or old and new", path.display());
    Fixture { path, comment, documents }
}

impl Fixture {
    /// What an API server answers to the documents, one after the other.
    fn answers(&self, server: &check::Server) -> Vec<Vec<String>> {
        let mut old = None;
        let mut answers = Vec::new();
        for document in &self.documents {
            let new = server.stored(document);
            answers.push(server.problems(&new, old.as_ref()));
            old = Some(new);
        }
        answers
    }
}

#[test]
fn the_committed_crd_is_the_one_that_the_types_make() {
    let committed = include_str!("../../../crds/imcluster.yaml");
    assert!(committed == yaml(), "crds/imcluster.yaml is old: cargo run -- crd > crds/imcluster.yaml");
}

#[test]
fn what_is_wrong_is_rejected_with_words_that_say_what_to_change() {
    let server = check::Server::new(schema());
    let fixtures = fixtures("reject");
    assert!(fixtures.len() >= 30, "{}", fixtures.len());
    for fixture in &fixtures {
        let expected =
            fixture.comment.strip_prefix("rejected: ").unwrap_or_else(|| panic!("{}", fixture.path.display()));
        let mut answers = fixture.answers(&server);
        let last = answers.pop().unwrap();
        assert!(answers.iter().all(Vec::is_empty), "{}: the first document: {answers:?}", fixture.path.display());
        assert_eq!(last.len(), 1, "{}: one thing is wrong in each: {last:?}", fixture.path.display());
        assert!(last[0].contains(expected), "{}: {last:?}", fixture.path.display());
    }
}

#[test]
fn what_is_right_is_accepted_and_read() {
    let server = check::Server::new(schema());
    let fixtures = fixtures("accept");
    assert!(fixtures.len() >= 15, "{}", fixtures.len());
    for fixture in &fixtures {
        let answers = fixture.answers(&server);
        assert!(answers.iter().all(Vec::is_empty), "{}: {answers:?}", fixture.path.display());
        for document in &fixture.documents {
            let stored = server.stored(document);
            let cluster: ImCluster = serde_json::from_value(stored).unwrap();
            let written = serde_json::to_value(&cluster).unwrap();
            let problems = server.problems(&server.stored(&written), None);
            assert!(problems.is_empty(), "{}: written back: {problems:?}", fixture.path.display());
        }
    }
}

#[test]
fn the_defaults_of_the_schema_are_those_of_the_types() {
    let server = check::Server::new(schema());
    for fixture in fixtures("accept") {
        for document in fixture.documents.iter().filter(|document| !document.to_string().contains("null")) {
            let read: ImCluster = serde_json::from_value(document.clone()).unwrap();
            let stored: ImCluster = serde_json::from_value(server.stored(document)).unwrap();
            assert_eq!(read, stored, "{}", fixture.path.display());
        }
    }
}

#[test]
fn a_default_keeps_the_rules_before_the_defaults_below_it_are_filled_in() {
    // The API server refuses a CRD otherwise.
    let defaults = check::defaults(&schema());
    assert!(defaults.len() > 30, "{}", defaults.len());
    for (path, default, schema) in defaults {
        let problems = check::Server::new(schema).problems_of_node(&path, &default);
        assert!(problems.is_empty(), "{path}: {problems:?}");
    }
}

#[test]
fn every_rule_refuses_a_fixture() {
    let server = check::Server::new(schema());
    let said: Vec<String> = fixtures("reject").iter().flat_map(|fixture| fixture.answers(&server).concat()).collect();
    let messages = check::messages(&schema());
    assert!(messages.len() > 20, "{}", messages.len());
    for message in messages {
        assert!(said.iter().any(|said| said.contains(&message)), "no fixture meets the rule: {message}");
    }
}

#[test]
fn every_string_list_map_and_number_of_the_spec_is_bounded() {
    fn walk(path: &str, schema: &Value) {
        let has = |key: &str| !schema[key].is_null();
        if has("x-kubernetes-preserve-unknown-fields") {
            return;
        }
        match schema["type"].as_str().unwrap_or("int-or-string") {
            "string" => assert!(has("maxLength") || has("enum") || schema["format"] == "date-time", "{path}"),
            "int-or-string" => assert!(has("maxLength") && has("x-kubernetes-int-or-string"), "{path}"),
            "array" => assert!(has("maxItems") && has("items"), "{path}"),
            "object" => assert!(!has("additionalProperties") || has("maxProperties"), "{path}"),
            "integer" | "number" => {
                assert!(has("minimum") && (has("maximum") || path.starts_with("status")), "{path}");
            }
            "boolean" => {}
            other => panic!("{path}: {other}"),
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property);
        }
        for below in ["items", "additionalProperties"] {
            if schema[below].is_object() {
                walk(&format!("{path}.{below}"), &schema[below]);
            }
        }
    }
    let schema = schema();
    walk("spec", &schema["properties"]["spec"]);
    walk("status", &schema["properties"]["status"]);
}

#[test]
fn only_formats_that_kubernetes_knows_are_named() {
    let yaml = yaml();
    let formats = yaml.lines().filter_map(|line| line.trim_start().strip_prefix("format: "));
    for format in formats {
        assert!(["int32", "int64", "double", "date-time"].contains(&format), "{format}");
    }
}

#[test]
fn kubectl_finds_it_by_its_short_name_and_scales_the_comets() {
    let crd = ImCluster::crd();
    let names = &crd.spec.names;
    assert_eq!((names.plural.as_str(), names.kind.as_str()), ("imclusters", "ImCluster"));
    assert_eq!((&names.short_names, &names.categories), (&Some(vec!["imc".into()]), &Some(vec!["all".into()])));
    let scale = crd.spec.versions[0].subresources.clone().unwrap().scale.unwrap();
    assert_eq!(scale.spec_replicas_path, ".spec.comet.replicas");
    assert_eq!(scale.status_replicas_path, ".status.comet.replicas");
    assert_eq!(scale.label_selector_path.as_deref(), Some(".status.comet.selector"));
    let columns: Vec<String> = crd.spec.versions[0]
        .additional_printer_columns
        .clone()
        .unwrap()
        .into_iter()
        .map(|column| column.name)
        .collect();
    assert_eq!(columns, ["Ready", "Version", "Comets", "Desired", "Connections", "Reason", "Age"]);
}
