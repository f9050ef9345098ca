//! What the chart grants, against the page that gives the reasons.

use std::collections::BTreeSet;

use e2e::rights::Right;

use super::*;

/// The rights of a Role or ClusterRole.
fn granted(role: &Value) -> BTreeSet<Right> {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    rights.insert(Right { group: group.clone(), resource: resource.clone(), verb });
                }
            }
        }
    }
    rights
}

/// The rights in the table below a heading.
fn explained(page: &str, heading: &str) -> BTreeSet<Right> {
    e2e::rights::explained(page, heading).unwrap().into_keys().collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name).collect()
}

#[tokio::test]
async fn every_right_is_on_the_page_with_its_reason_and_the_page_has_no_other() {
    let page = read("charts/imcluster-operator/RBAC.md");
    let in_a_namespace = explained(&page, "In a watched namespace");
    let lease = explained(&page, "In the release's namespace");
    let mut everywhere = explained(&page, "In all namespaces");

    let objects = rendered(OPERATOR, &[]).await;
    assert_eq!(granted(named(&objects, "Role", "imcluster-operator")[0]), in_a_namespace);
    let of_the_lease = named(&objects, "Role", "imcluster-operator-lease")[0];
    assert_eq!(granted(of_the_lease), lease);
    assert_eq!(of_the_lease["rules"][0]["resourceNames"], json!(["imcluster-operator"]));
    assert_eq!(kind(&objects, "Lease")[0]["metadata"]["name"], "imcluster-operator");

    let objects = rendered(OPERATOR, &["--set=watchNamespaces=*"]).await;
    everywhere.extend(in_a_namespace);
    assert_eq!(granted(named(&objects, "ClusterRole", "imcluster-operator")[0]), everywhere);
}

#[tokio::test]
async fn what_is_watched_decides_between_roles_and_a_cluster_role() {
    let places = |objects: &[Value], kind: &str| -> Vec<String> {
        let found = named(objects, kind, "imcluster-operator");
        found.iter().map(|role| role["metadata"]["namespace"].as_str().unwrap_or("-").to_owned()).collect()
    };
    let none: [&str; 0] = [];
    for (arguments, roles, cluster) in [
        (&[][..], &["ops"][..], &none[..]),
        (&["--set=watchNamespaces={team-a,team-b}"], &["team-a", "team-b"], &none),
        (&["--set=watchNamespaces=*"], &none, &["-"]),
        (&["--set=rbac.create=false"], &none, &none),
    ] {
        let objects = rendered(OPERATOR, arguments).await;
        assert_eq!(
            (places(&objects, "Role"), places(&objects, "RoleBinding")),
            (roles.iter().map(ToString::to_string).collect(), roles.iter().map(ToString::to_string).collect())
        );
        assert_eq!(
            (places(&objects, "ClusterRole"), places(&objects, "ClusterRoleBinding")),
            (cluster.iter().map(ToString::to_string).collect(), cluster.iter().map(ToString::to_string).collect())
        );
        for binding in objects.iter().filter(|object| !is_test(object) && object["roleRef"].is_object()) {
            let subject = json!([{"kind": "ServiceAccount", "name": "imcluster-operator", "namespace": "ops"}]);
            assert_eq!(binding["subjects"], subject);
        }
    }
}

#[tokio::test]
async fn no_secret_can_be_read_and_no_right_is_a_star() {
    for arguments in [&[][..], &["--set=watchNamespaces=*"]] {
        for role in rendered(OPERATOR, arguments).await.iter().filter(|object| object["rules"].is_array()) {
            for Right { group, resource, verb } in granted(role) {
                assert!(!format!("{group}{resource}{verb}").contains('*'), "{group} {resource} {verb}");
                assert!(resource != "secrets" || verb == "create", "{verb} {resource}");
                assert_ne!(verb, "deletecollection", "{resource}");
                assert!(!["escalate", "bind", "impersonate"].contains(&&*verb), "{verb} {resource}");
            }
        }
    }
}

/// What `helm test` may do: make one ImCluster, look at it and delete it.
#[tokio::test]
async fn the_smoke_test_may_touch_its_own_imcluster_only() {
    let objects = rendered(OPERATOR, &["--set=watchNamespaces={team-a,team-b}"]).await;
    let role = named(&objects, "Role", "imcluster-operator-smoke")[0];
    assert_eq!(role["metadata"]["namespace"], "team-a");
    let right = |verb: &str| Right {
        group: "imcluster.dev".to_owned(),
        resource: "imclusters".to_owned(),
        verb: verb.to_owned(),
    };
    assert_eq!(granted(role), BTreeSet::from(["create", "delete", "get"].map(right)));
    for rule in role["rules"].as_array().unwrap() {
        let create = rule["verbs"] == json!(["create"]);
        assert!(create || rule["resourceNames"] == json!(["imcluster-operator-smoke"]), "{rule}");
    }
}
