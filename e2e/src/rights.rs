//! What the operator may do, as `charts/imcluster-operator/RBAC.md` says it.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};

use crate::cluster::Entry;

/// One verb on one resource of one group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Empty for the core group.
    pub group: String,
    /// In the plural, with the subresource after a slash.
    pub resource: String,
    /// As in a Role.
    pub verb: String,
}

impl Right {
    /// What somebody needed for this request, when it was about an object.
    pub fn of(entry: &Entry) -> Option<Self> {
        let object = entry.object_ref.as_ref()?;
        let resource = match object.subresource.as_str() {
            "" => object.resource.clone(),
            subresource => format!("{}/{subresource}", object.resource),
        };
        Some(Self { group: object.api_group.clone(), resource, verb: entry.verb.clone() })
    }
}

/// The rights in the table below a heading, and whether each may be missing in the log of an ordinary day. Every row has
/// to give a reason.
///
/// # Errors
/// When there is no such table, or a row is not what it should be; the text shows it.
pub fn explained(page: &str, heading: &str) -> anyhow::Result<BTreeMap<Right, bool>> {
    let (_, section) = page.split_once(&format!("\n## {heading}")).with_context(|| format!("no section {heading}"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut rights = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [groups, resources, verbs, rare, why] = cells[..] else { anyhow::bail!("not five cells: {row}") };
        ensure!(why.len() > 10, "no reason: {row}");
        let rare: Vec<&str> = rare.split(", ").filter(|verb| !verb.is_empty()).collect();
        let verbs: Vec<&str> = verbs.split(", ").collect();
        ensure!(rare.iter().all(|verb| verbs.contains(verb)), "rare, but not granted: {row}");
        for group in groups.split(", ") {
            let group = if group == "core" { "" } else { group };
            for resource in resources.split(", ") {
                for verb in &verbs {
                    let (group, resource) = (group.to_owned(), resource.to_owned());
                    let right = Right { group, resource, verb: (*verb).to_owned() };
                    ensure!(rights.insert(right, rare.contains(verb)).is_none(), "twice: {row}");
                }
            }
        }
    }
    ensure!(!rights.is_empty(), "{heading} has no table");
    Ok(rights)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Rights\n\n## Here\n\n| group | resources | verbs | rare | why |\n|---|---|---|---|---|\n\
                        | core | pods, services | get, delete | delete | because it has to |\n\n## There\n\nNothing.\n";

    #[test]
    fn each_verb_on_each_resource_is_a_right_and_some_are_rare() {
        let rights = explained(PAGE, "Here").unwrap();
        let said: Vec<_> =
            rights.iter().map(|(right, rare)| format!("{} {} {rare}", right.verb, right.resource)).collect();
        assert_eq!(said, ["delete pods true", "get pods false", "delete services true", "get services false"]);
    }

    #[test]
    fn a_row_without_a_reason_or_with_a_strange_verb_is_named() {
        for (wrong, told) in [("because it has to", "no reason"), ("get, delete | delete", "rare, but not granted")] {
            let instead = if told == "no reason" { "so" } else { "get | delete" };
            let error = explained(&PAGE.replace(wrong, instead), "Here").unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
        assert!(explained(PAGE, "There").is_err() && explained(PAGE, "Elsewhere").is_err());
    }
}
