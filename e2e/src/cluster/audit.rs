//! The API server's audit log: who asked for what, and what came of it.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// The account, or whom it said it was.
    user: User,
    impersonated_user: Option<User>,
    /// What the request was about; none for the likes of `/openapi`.
    pub object_ref: Option<Object>,
    response_status: Option<Status>,
    /// When it came, RFC 3339 with microseconds: sorts as text.
    pub request_received_timestamp: String,
    /// The whole path.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    stage: String,
}

/// What a request is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// Empty for the core group.
    pub api_group: String,
    /// In the plural, as in a Role: `statefulsets`.
    pub resource: String,
    /// `status`, `scale`, … or empty.
    pub subresource: String,
    /// Empty for what belongs to none, and for all of them.
    pub namespace: String,
    /// Empty for a list or a create without a name.
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

impl Entry {
    /// The account that asked, such as `system:serviceaccount:<namespace>:<name>`.
    pub fn account(&self) -> &str {
        &self.impersonated_user.as_ref().unwrap_or(&self.user).username
    }

    /// The status code of the answer, 0 when there was none.
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }

    /// Whether it was refused for want of a permission. Not one of those: for some seconds after a definition was made
    /// the API server cannot yet tell whether somebody may own by an object of it.
    pub fn denied(&self) -> bool {
        let message = self.response_status.as_ref().map_or("", |status| &status.message);
        self.code() == 403 && !message.contains("cannot find RESTMapping")
    }

    /// Whether it is of the kind that changes something.
    pub fn writes(&self) -> bool {
        ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str())
    }

    /// Whether it is about objects of this resource, in the plural.
    pub fn is_about(&self, resource: &str) -> bool {
        self.object_ref.as_ref().is_some_and(|object| object.resource == resource)
    }
}

/// Reads whole lines; the last one may still be on its way. A watch is two of them and counts once.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    parse(&text)
}

fn parse(text: &str) -> anyhow::Result<Vec<Entry>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut entries = Vec::new();
    for line in whole.lines() {
        let entry: Entry = serde_json::from_str(line).with_context(|| format!("an audit entry: {line}"))?;
        if entry.stage != "ResponseComplete" || entry.verb != "watch" {
            entries.push(entry);
        }
    }
    entries.sort_by(|one, other| one.request_received_timestamp.cmp(&other.request_received_timestamp));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(verb: &str, stage: &str, time: &str, more: &str) -> String {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","stage":"{stage}","verb":"{verb}","requestURI":"/x","user":{{"username":"admin","groups":["a"]}},"requestReceivedTimestamp":"{time}"{more}}}"#
        ) + "\n"
    }

    #[test]
    fn an_account_is_whom_somebody_acts_as() {
        let more = r#","impersonatedUser":{"username":"system:serviceaccount:a:b"},"responseStatus":{"code":403},"objectRef":{"resource":"pods","namespace":"a","apiVersion":"v1"}"#;
        let entries = parse(&line("delete", "ResponseComplete", "2026-01-01T00:00:00.000001Z", more)).unwrap();
        assert_eq!(entries[0].account(), "system:serviceaccount:a:b");
        assert!(entries[0].denied() && entries[0].writes() && entries[0].is_about("pods"));
        assert!(!entries[0].is_about("leases"));
    }

    #[test]
    fn an_owner_that_the_server_does_not_know_yet_is_no_want_of_a_permission() {
        let more = r#","responseStatus":{"code":403,"message":"cannot find RESTMapping for Kind ImCluster"}"#;
        let entries = parse(&line("create", "ResponseComplete", "2026-01-01T00:00:00.000001Z", more)).unwrap();
        assert!(entries[0].code() == 403 && !entries[0].denied());
    }

    #[test]
    fn a_watch_counts_once_and_half_a_line_not_at_all() {
        let text = line("watch", "ResponseStarted", "2026-01-01T00:00:00.000002Z", "")
            + &line("get", "ResponseComplete", "2026-01-01T00:00:00.000001Z", "")
            + &line("watch", "ResponseComplete", "2026-01-01T00:00:00.000002Z", "")
            + r#"{"kind":"Ev"#;
        let verbs: Vec<_> = parse(&text).unwrap().into_iter().map(|entry| entry.verb).collect();
        assert_eq!(verbs, ["get", "watch"]);
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn an_entry_that_is_none_is_shown() {
        assert!(format!("{:#}", parse("{}\n").unwrap_err()).contains("an audit entry: {}"));
    }
}
