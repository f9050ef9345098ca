//! The reference page of `ImCluster`, made from its schema: every field with its type, default and bounds, what it is
//! for, and what is refused with which words.

mod field;

use serde_json::Value;

use crate::crd;
use field::Field;

/// How the page begins.
const HEAD: &str = "\
<!-- Made by `imcluster crd --reference`. -->
# ImCluster

`imclusters.imcluster.dev`, version `v1alpha1`, short name `imc`. `kubectl explain imcluster.spec --recursive` shows the
same beside the cluster. The least that works:

```yaml
apiVersion: imcluster.dev/v1alpha1
kind: ImCluster
metadata: {name: prod}
spec:
  version: \"0.1.0\"
  auth: {trust: {}}
  kafka: {dev: {}}
  redis: {dev: {}}
  logic:
    ingress: {host: im.example.com}
```

A field without a default may be left out unless it is *required*; `[]` stands for each element of a list, `*` for each
key of a map. The API server refuses what is outside of the bounds, and what stands under *Refused*, with that text.
";

/// The reference page, in Markdown.
pub fn page() -> String {
    let schema = crd::schema();
    let mut page = HEAD.to_owned();
    section(&mut page, "metadata", &schema, &[]);
    let spec = &schema["properties"]["spec"];
    let parts = ["kafka", "redis", "comet", "logic", "job"];
    section(&mut page, "spec", spec, &parts);
    for part in parts {
        let schema = &spec["properties"][part];
        let path = format!("spec.{part}");
        section(&mut page, &path, schema, &["config"]);
        if let Some(config) = schema["properties"].get("config") {
            section(&mut page, &format!("{path}.config"), config, &[]);
        }
    }
    section(&mut page, "status", &schema["properties"]["status"], &[]);
    page
}

/// One object and what is below it; `elsewhere` names the fields that have a section of their own.
fn section(page: &mut String, path: &str, schema: &Value, elsewhere: &[&str]) {
    let fields = field::below(schema, elsewhere);
    let mut text = format!("\n## {path}\n\n");
    if path == "metadata" {
        text.push_str("As of every object; its `name` is bounded more closely.\n");
    } else if let Some(description) = schema["description"].as_str() {
        text.push_str(&one_line(description));
        text.push('\n');
    }
    if path != "metadata" {
        text.push_str("\n| field | type | default | bounds | |\n|---|---|---|---|---|\n");
        for field in &fields {
            row(&mut text, path, field, elsewhere);
        }
    }
    let own = field::rules(schema);
    let below = fields.iter().filter(|_| path != "metadata").flat_map(|field| field.refused.iter().cloned());
    let refused: Vec<String> = own.into_iter().chain(below).collect();
    if !refused.is_empty() {
        text.push_str("\nRefused:\n");
        for message in refused {
            text.push_str(&format!("- {message}\n"));
        }
    }
    page.push_str(&text);
}

fn row(text: &mut String, section: &str, field: &Field, elsewhere: &[&str]) {
    let name = if elsewhere.contains(&field.path.as_str()) {
        let anchor = format!("{section}.{}", field.path).replace('.', "").to_lowercase();
        format!("[`{}`](#{anchor})", field.path)
    } else {
        format!("`{}`", field.path)
    };
    let default = if field.required { "*required*".to_owned() } else { code(field.default.as_deref()) };
    let bounds = field.bounds.join(", ");
    let cells = [name, field.kind.clone(), default, bounds, one_line(&field.description)];
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    text.push_str(&format!("| {} |\n", cells.join(" | ")));
}

fn code(text: Option<&str>) -> String {
    text.map(|text| format!("`{text}`")).unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_the_one_that_the_types_make() {
        let committed = include_str!("../../docs/imcluster.md");
        assert!(committed == page(), "docs/imcluster.md is old: cargo run -- crd --reference > docs/imcluster.md");
    }

    #[test]
    fn every_field_of_the_schema_has_a_row_and_says_what_it_is_for() {
        fn names(schema: &Value, found: &mut Vec<String>) {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                found.push(name.clone());
                names(property, found);
            }
            for below in ["items", "additionalProperties"].map(|below| &schema[below]) {
                if below.is_object() {
                    names(below, found);
                }
            }
        }
        let mut all = Vec::new();
        for part in ["spec", "status"] {
            names(&crd::schema()["properties"][part], &mut all);
        }
        assert!(all.len() > 150, "{}", all.len());
        let page = page();
        let rows: Vec<&str> =
            page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| field")).collect();
        assert_eq!(rows.len(), all.len());
        for name in all {
            let shown = |row: &&&str| row.contains(&format!("`{name}`")) || row.contains(&format!(".{name}`"));
            assert!(rows.iter().any(|row| shown(&row)), "{name}");
        }
        for row in rows {
            assert!(!row.ends_with("|  |"), "no description: {row}");
        }
    }

    #[test]
    fn what_a_cel_rule_says_is_on_the_page() {
        let page = page();
        let rules = field::all_rules(&crd::schema());
        assert!(rules.len() > 15, "{}", rules.len());
        for message in rules {
            assert!(page.contains(&format!("- {message}\n")), "{message}");
        }
    }
}
