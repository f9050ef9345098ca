//! The ImClusters that notes, pages and the smoke test show: short enough, known to the operator field by field, and
//! something that it would build.

use operator::crd::ImCluster;

use super::*;

/// Whether everything that was written is in what was read from it.
fn is_within(written: &Value, understood: &Value, path: &str) {
    match (written, understood) {
        (Value::Object(fields), Value::Object(read)) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                let found = read.get(name).unwrap_or_else(|| panic!("{path} is no field of an ImCluster"));
                is_within(value, found, &path);
            }
        }
        (written, understood) => assert_eq!(written, understood, "{path}"),
    }
}

fn check(text: &str) {
    let written: Value = serde_saphyr::from_str(text).unwrap();
    let cluster: ImCluster = serde_json::from_value(written.clone()).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    is_within(&written["spec"], &serde_json::to_value(&cluster.spec).unwrap(), "spec");
    let mut cluster = cluster;
    cluster.metadata.namespace = Some("apps".to_owned());
    let operand = operator::validate::Operand {
        image: "imcluster/imcluster".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    operator::validate::validate(&cluster, &operand).unwrap_or_else(|error| panic!("{error}:\n{text}"));
}

/// The documents in fenced blocks of a page that are an ImCluster.
fn blocks(page: &str) -> Vec<&str> {
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(|block| block.split("---\n")).filter(|document| document.contains("kind: ImCluster")).collect()
}

#[test]
fn every_imcluster_on_a_page_is_one_that_the_operator_builds() {
    let mut seen = 0;
    let pages = std::fs::read_dir(root().join("docs/kubernetes")).unwrap();
    let pages = pages.map(|page| format!("docs/kubernetes/{}", page.unwrap().file_name().to_string_lossy()));
    for page in pages.chain(["README.md".to_owned(), "docs/kubernetes.md".to_owned()]) {
        let text = read(&page);
        for block in blocks(&text) {
            check(block);
            seen += 1;
        }
    }
    assert!(seen >= 3, "the pages show {seen}");
}

/// helm prints notes only when it has a cluster, so this is their source, with the one value that it contains.
#[test]
fn the_notes_show_an_imcluster_of_at_most_twelve_lines() {
    let notes = read("charts/imcluster-operator/templates/NOTES.txt");
    let (_, shown) = notes.split_once("<<'END'\n").unwrap();
    let (shown, _) = shown.split_once("END\n").unwrap();
    let version = format!("{:?}", env!("CARGO_PKG_VERSION"));
    let shown = shown.replace("{{ .Chart.AppVersion | quote }}", &version);
    assert!(shown.lines().count() <= 12 && !shown.contains("{{"), "{shown}");
    check(&shown);
    for page in ["docs/kubernetes.md", "README.md"] {
        assert!(blocks(&read(page)).contains(&shown.as_str()), "{page} shows another:\n{shown}");
    }
}

#[tokio::test]
async fn the_smoke_tests_imcluster_is_one_that_the_operator_builds() {
    for values in values() {
        let objects = rendered(OPERATOR, &[&values]).await;
        let made = objects.iter().filter_map(|object| object["data"]["imcluster.yaml"].as_str());
        made.for_each(check);
    }
    let plain = rendered(OPERATOR, &[]).await;
    assert!(plain.iter().any(|object| object["data"]["imcluster.yaml"].is_string()));
}

/// The string literals that follow a call of one of these functions.
fn literals(source: &str, calls: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for call in calls {
        let call = format!("{call}(\"");
        let after = source.split(&call).skip(1);
        found.extend(after.map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    found
}

#[test]
fn troubleshooting_explains_every_condition_every_reason_and_every_event() {
    let page = read("docs/kubernetes/troubleshooting.md");
    let conditions = read("operator/src/status/conditions.rs");
    let kinds = literals(&conditions, &["conditions.set"]);
    let mut reasons = literals(&conditions, &["yes", "no", "unknown"]);
    let words = conditions.split('"').skip(1).step_by(2);
    // Words of the same shape that are no reasons: a condition's status, and two kinds.
    let other = ["Unknown", "Ingress", "HTTPRoute"];
    let is_reason = |word: &&str| {
        !other.contains(word)
            && word.len() > 6
            && word.starts_with(char::is_uppercase)
            && word.chars().all(char::is_alphabetic)
    };
    reasons.extend(words.filter(is_reason).map(str::to_owned));
    let events = read("operator/src/events.rs");
    let named = events.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    let named: Vec<String> = named.collect();
    assert!(kinds.len() > 9 && reasons.len() > 20 && named.len() > 12, "{kinds:?} {reasons:?} {named:?}");
    let missing: Vec<String> =
        kinds.into_iter().chain(reasons).chain(named).filter(|word| !page.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "the page does not explain {missing:?}");
}
