//! What a user gets wrong, once per component: a setting, a Secret, room. It is named within a minute, clients go on, and
//! correcting the spec is enough.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::join_all;
use serde_json::{Value, json};

use super::external::External;
use super::rig::Rig;

/// Within what a condition has to name pod and cause. A comet is drained before another takes its place.
const NAMED: Duration = Duration::from_secs(60);

/// One thing that can be got wrong.
struct Fault {
    what: &'static str,
    /// A patch of `spec`, and the one that takes it back.
    wrong: Value,
    right: Value,
    /// What the condition says of it.
    cause: &'static [&'static str],
}

/// A component's three.
fn faults(component: &str) -> [Fault; 3] {
    let setting = json!({component: {"configOverrides": {"imcluster": {"heartbaet": "4m"}}}});
    let room = json!({component: {"resources": {"requests": {"cpu": "100"}}}});
    let volume = json!({"name": "absent", "secret": {"secretName": "absent"}});
    let container = json!({"name": "job", "volumeMounts": [{"name": "absent", "mountPath": "/etc/absent"}]});
    let template = json!({"spec": {"containers": [container], "volumes": [volume]}});
    let (secret, no_secret) = match component {
        "comet" => {
            (json!({"comet": {"listeners": {"tls": {"secretName": "absent"}}}}), json!({"comet": {"listeners": null}}))
        }
        "logic" => (json!({"push": {"tokensSecretRef": {"name": "absent"}}}), json!({"push": null})),
        _ => (json!({"job": {"podTemplate": template}}), json!({"job": {"podTemplate": null}})),
    };
    [
        Fault {
            what: "a setting that nobody knows",
            wrong: setting,
            right: json!({component: {"configOverrides": null}}),
            cause: &["heartbaet"],
        },
        Fault { what: "a Secret that is not there", wrong: secret, right: no_secret, cause: &["absent", "not found"] },
        Fault {
            what: "more than any node has",
            wrong: room,
            right: json!({component: {"resources": null}}),
            cause: &["Unschedulable", "Insufficient cpu"],
        },
    ]
}

/// One ImCluster, in which one component goes through its faults.
async fn of_a_component(rig: &Rig, external: &External, component: &str) -> anyhow::Result<()> {
    let name = format!("bad-{component}");
    let host = format!("{name}.example.com");
    // A comet is let go before the next one comes: another has to be there.
    let pods = if component == "comet" { 2 } else { 1 };
    let mut cluster = external.imcluster(&name, pods, None);
    // A comet without clients need not take its time to leave.
    cluster["spec"]["comet"]["drain"]["minSeconds"] = json!(1);
    rig.cluster.apply(&cluster.to_string()).await?;
    rig.settled(&name).await?;
    let token = rig.push_token(&name).await?;
    for fault in faults(component) {
        let what = format!("{component}: {}", fault.what);
        let before = rig.serving(&name, component).await?;
        let began = Instant::now();
        rig.patch(&name, json!({"spec": fault.wrong})).await?;
        let pod = format!("{name}-{component}-");
        let words = [&[pod.as_str()], fault.cause].concat();
        let named =
            rig.condition(&name, "Progressing", "Stalled", &words, NAMED).await.with_context(|| what.clone())?;
        println!("{what}: named after {:.1} s: {}", began.elapsed().as_secs_f64(), named["message"]);

        rig.a_push_arrives(&host, &token).await.with_context(|| what.clone())?;
        let still: BTreeSet<String> = &rig.serving(&name, component).await? & &before;
        let stay = if component == "comet" { before.len() - 1 } else { before.len() };
        ensure!(still.len() == stay, "{what}: of {before:?} only {still:?} serve");

        let began = Instant::now();
        rig.patch(&name, json!({"spec": fault.right})).await?;
        rig.settled(&name).await.with_context(|| what.clone())?;
        println!("{what}: mended after {:.1} s", began.elapsed().as_secs_f64());
        rig.a_push_arrives(&host, &token).await.with_context(|| what.clone())?;
        let after = rig.serving(&name, component).await?;
        ensure!(after.is_superset(&still), "{what}: {still:?} served on, and were replaced by {after:?} all the same");
    }
    rig.cluster.kubectl(&["delete", "imcluster", &name, "--timeout=50s"]).await?;
    Ok(())
}

/// The three components side by side.
pub async fn story(rig: &Rig, external: &External) {
    let stories = ["comet", "logic", "job"].map(|component| of_a_component(rig, external, component));
    let ends = join_all(stories).await;
    let wrong: Vec<String> = ends.into_iter().filter_map(|end| Some(format!("{:#}", end.err()?))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
