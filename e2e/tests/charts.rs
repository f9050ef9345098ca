//! The charts as helm renders them: what is installed, what it may do, and what it says. No cluster is needed; helm is the
//! one that `e2e/cluster` builds, or `IMCLUSTER_HELM`.

mod rights;
mod said;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use e2e::{child, program};
use serde_json::{Value, json};

const OPERATOR: &str = "charts/imcluster-operator";
const CRDS: &str = "charts/imcluster-crds";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The helm that the cluster is tested with.
fn helm() -> &'static Path {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    HELM.get_or_init(|| {
        if let Some(helm) = std::env::var_os("IMCLUSTER_HELM") {
            return helm.into();
        }
        let built = Command::new(root().join("e2e/cluster/build")).output().unwrap();
        let (folders, error) = (String::from_utf8(built.stdout).unwrap(), String::from_utf8_lossy(&built.stderr));
        let folder = folders.lines().next().unwrap_or_else(|| panic!("e2e/cluster/build: {error}"));
        Path::new(folder).join("helm")
    })
}

/// Runs helm at the root of the tree; what it prints, or what it complains of.
async fn run(arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(helm());
    command.args(arguments).current_dir(root());
    child::run("e2e/cluster/build builds it", command).await
}

/// What a chart makes with these further arguments, for the release `imcluster-operator` in the namespace `ops`.
async fn template(chart: &str, more: &[&str]) -> anyhow::Result<Vec<Value>> {
    let fixed = ["template", "imcluster-operator", chart, "--namespace=ops", "--kube-version=1.33.0"];
    let text = run(&[&fixed, more].concat()).await?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

async fn rendered(chart: &str, more: &[&str]) -> Vec<Value> {
    template(chart, more).await.unwrap()
}

/// `--values=` and a file of the operator's chart, for each there is, and none.
fn values() -> Vec<String> {
    let files = std::fs::read_dir(root().join(OPERATOR).join("ci")).unwrap();
    let mut values: Vec<String> = files.map(|file| format!("--values={}", file.unwrap().path().display())).collect();
    assert!(values.len() > 2, "{values:?}");
    values.push("--set=replicas=1".to_owned());
    values
}

fn kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn is_test(object: &Value) -> bool {
    object["metadata"]["annotations"]["helm.sh/hook"] == "test"
}

fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

#[tokio::test]
async fn both_charts_pass_lint_with_every_set_of_values() {
    for values in values() {
        run(&["lint", "--strict", "--kube-version=1.33.0", OPERATOR, &values]).await.unwrap();
    }
    run(&["lint", "--strict", "--kube-version=1.33.0", CRDS]).await.unwrap();
}

#[tokio::test]
async fn an_older_kubernetes_is_refused() {
    for chart in [OPERATOR, CRDS] {
        let told = run(&["template", "one", chart, "--kube-version=1.32.9"]).await.unwrap_err().to_string();
        assert!(told.contains("1.33.0"), "{told}");
        run(&["template", "one", chart, "--kube-version=1.33.0-eks-1"]).await.unwrap();
    }
}

#[tokio::test]
async fn values_that_do_not_exist_or_cannot_be_are_refused_by_name() {
    for (value, named) in [
        ("replica=2", "replica"),
        ("image.name=x", "name"),
        ("image.repository=", "repository"),
        ("image.digest=sha256:12", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("replicas=two", "replicas"),
        ("resync=5", "resync"),
        ("resync=0s", "resync"),
        ("watchNamespaces={Team}", "watchNamespaces"),
        ("watchNamespaces=team", "watchNamespaces"),
        ("watchNamespaces={*}", "watchNamespaces"),
        ("log.format=xml", "format"),
        ("serviceAccount.create=false", "serviceAccount"),
        ("helmTest.timeout=soon", "timeout"),
    ] {
        let refused = template(OPERATOR, &["--set", value]).await.unwrap_err().to_string();
        assert!(
            refused.contains("values don't meet the specifications") && refused.contains(named),
            "{value}: {refused}"
        );
    }
    let refused = template(CRDS, &["--set=keep=false"]).await.unwrap_err().to_string();
    assert!(refused.contains("keep"), "{refused}");
}

#[tokio::test]
async fn every_pod_passes_restricted_has_a_read_only_root_and_no_token_unless_it_asks_for_one() {
    for values in values() {
        let objects = rendered(OPERATOR, &[&values]).await;
        let workloads = objects.iter().filter(|object| object["spec"]["template"]["spec"].is_object());
        let mut seen = 0;
        for workload in workloads {
            seen += 1;
            let pod = &workload["spec"]["template"]["spec"];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{values}");
            assert_eq!(pod["securityContext"]["seccompProfile"], json!({"type": "RuntimeDefault"}));
            for inside in pod["containers"].as_array().unwrap() {
                let wanted = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true});
                assert_eq!(inside["securityContext"], wanted);
            }
            for volume in pod["volumes"].as_array().into_iter().flatten() {
                assert!(volume["configMap"].is_object() || volume["secret"].is_object(), "{volume}");
            }
        }
        assert!(seen > 0, "{values}: no pod at all");
        let accounts = kind(&objects, "ServiceAccount");
        assert!(accounts.iter().all(|account| account["automountServiceAccountToken"] == false));
    }
}

#[tokio::test]
async fn image_arguments_and_probes_are_those_of_the_values() {
    let deployment = |objects: Vec<Value>| kind(&objects, "Deployment")[0].clone();
    let plain = deployment(rendered(OPERATOR, &[]).await);
    assert_eq!(plain["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(plain["spec"]["replicas"], 1);
    let version = format!("imcluster/imcluster:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container(&plain)["image"], version);
    for (probe, path) in [("livenessProbe", "/live"), ("readinessProbe", "/ready")] {
        assert_eq!(container(&plain)[probe]["httpGet"], json!({"path": path, "port": "admin"}));
    }
    assert_eq!(container(&plain)["ports"], json!([{"name": "admin", "containerPort": 3131}]));

    let file = format!("--values={}", root().join(OPERATOR).join("ci/everything-values.yaml").display());
    let full = deployment(rendered(OPERATOR, &[&file]).await);
    let image = container(&full)["image"].as_str().unwrap();
    assert!(image.starts_with("registry.example.com:5000/im/imcluster@sha256:0123"), "{image}");
    let arguments = container(&full)["args"].as_array().unwrap();
    for wanted in
        ["--operand-image=registry.example.com:5000/im/operand", "--watch-namespaces=team-a,team-b", "--resync=5s"]
    {
        assert!(arguments.iter().any(|argument| argument == wanted), "{wanted} is not in {arguments:?}");
    }
    let all = deployment(rendered(OPERATOR, &["--set=watchNamespaces=*"]).await);
    assert!(container(&all)["args"].as_array().unwrap().iter().any(|argument| argument == "--watch-namespaces=*"));
}

/// `--help` after them is answered only when all of them were understood.
#[tokio::test]
async fn the_program_takes_the_arguments_that_the_chart_gives_it() {
    for values in values() {
        for workload in rendered(OPERATOR, &[&values])
            .await
            .iter()
            .filter(|o| ["Deployment", "Job"].iter().any(|k| o["kind"] == *k))
        {
            let arguments = container(workload)["args"].as_array().unwrap().iter();
            let mut command = Command::new(program::binary().unwrap());
            command.args(arguments.map(|argument| argument.as_str().unwrap())).arg("--help").env_clear();
            child::run("cargo build --release --bin imcluster", command).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_definition_in_the_chart_is_the_definition_and_is_kept() {
    let definition = read("crds/imcluster.yaml");
    assert_eq!(read("charts/imcluster-crds/files/imcluster.yaml"), definition, "run make bundle");
    let mut wanted: Value = serde_saphyr::from_str(&definition).unwrap();
    wanted["metadata"]["annotations"]["helm.sh/resource-policy"] = json!("keep");
    assert_eq!(kind(&rendered(CRDS, &[]).await, "CustomResourceDefinition"), [&wanted]);
    let bare = rendered(CRDS, &["--set=aggregateRoles=false"]).await;
    assert_eq!(bare, [wanted]);
}

#[tokio::test]
async fn the_bundle_is_what_the_charts_render() {
    let fresh = tempfile::NamedTempFile::new().unwrap();
    let mut bundle = Command::new(root().join("deploy/bundle"));
    bundle.arg(fresh.path()).env("HELM", helm());
    child::run("deploy/bundle is part of the tree", bundle).await.unwrap();
    let fresh = std::fs::read_to_string(fresh.path()).unwrap();
    assert!(fresh.matches("\n---\n").count() > 8, "{fresh}");
    assert!(
        fresh == read("deploy/imcluster.yaml"),
        "deploy/imcluster.yaml is not what the charts make: run make bundle"
    );
}

#[tokio::test]
async fn only_the_test_hooks_stay_out_of_an_install_and_clean_up_after_themselves() {
    let objects = rendered(OPERATOR, &[]).await;
    let hooks: Vec<&Value> = objects.iter().filter(|object| is_test(object)).collect();
    let kinds: Vec<&str> = hooks.iter().map(|hook| hook["kind"].as_str().unwrap()).collect();
    for wanted in ["ServiceAccount", "Role", "RoleBinding", "Secret", "ConfigMap", "Job"] {
        assert_eq!(kinds.iter().filter(|kind| **kind == wanted).count(), 1, "{wanted}: {kinds:?}");
    }
    for hook in hooks {
        let policy = &hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"];
        assert_eq!(policy, "before-hook-creation,hook-succeeded", "{hook}");
    }
    let without = rendered(OPERATOR, &["--set=helmTest.enabled=false"]).await;
    assert_eq!(without.len(), objects.len() - 6);
}
