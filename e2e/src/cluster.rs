//! A real Kubernetes: two nodes, DNS, an Ingress and Gateway controller, in network namespaces of this machine.
//!
//! `e2e/cluster` brings it up and says what it is made of; here is what a test does with it. One is up at a time on a
//! machine, and none outlives the test: it goes when the value is dropped, and when the process dies. Unless the test
//! got as far as [`Cluster::end`], what a person needs to see then is in `artefacts/cluster`. All that it runs is in [`Namespace`]s, which a
//! test enters where it has to be inside.

mod audit;
mod hold;
mod namespace;
mod traces;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

pub use audit::{Entry, Object};
pub use namespace::{Inside, Namespace};
pub use traces::Traces;

use crate::child;
use hold::Hold;

/// The address of node 1. The Ingress and Gateway controller listens here on ports 80 and 443, and NodePorts are here.
pub const NODE: &str = "198.18.0.1";
/// The address of node 2, which has NodePorts too. A client in [`Namespace::Client`] has a way to these two only.
pub const NODE2: &str = "198.18.0.2";
/// What a command may take that is not told how long to wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long Helm may take: it waits for hooks.
const CHART: Duration = Duration::from_secs(300);
const INSTALL: &str = "util-linux has nsenter, and make test installs what a cluster needs";

/// A cluster that is up.
#[derive(Debug)]
pub struct Cluster {
    hold: Hold,
}

impl Cluster {
    /// Brings one up with nothing in it. Waits for another test's to end.
    ///
    /// # Errors
    /// When it cannot be brought up, or somebody has one: the text says who, or ends as the log of the bring-up does.
    pub async fn start() -> anyhow::Result<Self> {
        Ok(Self { hold: Hold::begin(&[]).await? })
    }

    /// The same, with the images of this folder's `*.tar` on both nodes.
    ///
    /// # Errors
    /// As [`start`](Self::start), and when there is no image or it cannot be imported.
    pub async fn with_images(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self { hold: Hold::begin(&[("IMCLUSTER_IMAGES", folder)]).await? })
    }

    /// Takes it down, and fails when something of it is left on the machine.
    ///
    /// # Errors
    /// When something is left; the text says what.
    pub async fn end(self) -> anyhow::Result<()> {
        self.hold.end().await
    }

    /// The administrator's. It names 127.0.0.1, which is the API server inside [`Namespace::Cluster`] only.
    pub fn kubeconfig(&self) -> PathBuf {
        self.hold.state().join("kubeconfig")
    }

    /// Where the cluster keeps everything: `log/`, `pki/`, `audit.log`.
    pub fn state(&self) -> &Path {
        self.hold.state()
    }

    /// A command that runs inside the cluster's network as the administrator, with kubectl and helm on its path.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Namespace::Cluster.command(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.state().join("bin").display()));
        command.env("KUBECONFIG", self.kubeconfig());
        for (name, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(name, self.state().join("helm").join(folder));
        }
        command
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Errors
    /// When it fails or takes more than a minute; the text holds what it wrote.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run("kubectl", arguments, PATIENCE).await
    }

    /// The same for what may take longer, such as a drain.
    ///
    /// # Errors
    /// As [`kubectl`](Self::kubectl), with this patience.
    pub async fn kubectl_within(&self, patience: Duration, arguments: &[&str]) -> anyhow::Result<String> {
        self.run("kubectl", arguments, patience).await
    }

    /// `kubectl get … -o json`.
    ///
    /// # Errors
    /// As [`kubectl`](Self::kubectl).
    pub async fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], arguments].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {arguments:?}: {text}"))
    }

    /// `kubectl` with these objects, in YAML or JSON, as its `--filename`.
    ///
    /// # Errors
    /// As [`kubectl`](Self::kubectl): the text is what a user would read.
    pub async fn kubectl_on(&self, objects: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let file = tempfile::Builder::new().prefix("imcluster-").suffix(".yaml").tempfile()?;
        std::fs::write(file.path(), objects)?;
        self.kubectl(&[arguments, &["--filename", &file.path().to_string_lossy()]].concat()).await
    }

    /// `kubectl apply` of these objects.
    ///
    /// # Errors
    /// As [`kubectl_on`](Self::kubectl_on).
    pub async fn apply(&self, objects: &str) -> anyhow::Result<String> {
        self.kubectl_on(objects, &["apply"]).await
    }

    /// `kubectl wait`: `deployment/web`, `condition=Available`, and a namespace or a selector where needed. It waits
    /// for the object itself as well.
    ///
    /// # Errors
    /// When it is not so at the deadline; the text is kubectl's and the object's description.
    pub async fn wait(&self, deadline: Duration, what: &str, until: &str, more: &[&str]) -> anyhow::Result<()> {
        let (until, timeout) = (format!("--for={until}"), format!("--timeout={}s", deadline.as_secs()));
        let line = ["wait", what, &until, &timeout];
        let there = ["wait", what, "--for=create", &timeout];
        let patience = deadline + PATIENCE;
        let waited = async {
            self.run("kubectl", &[&there, more].concat(), patience).await?;
            self.run("kubectl", &[&line, more].concat(), patience).await
        };
        match waited.await {
            Ok(_) => Ok(()),
            Err(error) => {
                let described = self.kubectl(&[&["describe", what], more].concat()).await;
                Err(error.context(described.unwrap_or_else(|error| format!("{error:#}"))))
            }
        }
    }

    /// Runs helm and returns what it printed.
    ///
    /// # Errors
    /// When it fails or takes more than five minutes; the text holds what it wrote.
    pub async fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run("helm", arguments, CHART).await
    }

    /// Puts a container image on both nodes: an archive as `docker save` or an OCI layout's. Returns its names; pods
    /// want `imagePullPolicy: Never` or `IfNotPresent`, as there is no registry.
    ///
    /// # Errors
    /// When the archive is not there or is none.
    pub async fn import_image(&self, archive: &Path) -> anyhow::Result<Vec<String>> {
        let mut command = Command::new(hold::script());
        command.arg("load").arg(archive);
        let names = timed(command, CHART).await?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// What befalls node 2: `down` (power loss), `up` (it comes back with its disk), `cut` (off the network), `mend`.
    ///
    /// # Errors
    /// When it cannot be done, or the node does not come back.
    pub async fn node(&self, event: &str) -> anyhow::Result<()> {
        let mut command = Command::new(hold::script());
        command.args(["node", "2", event]);
        timed(command, CHART).await.map(drop)
    }

    /// Everything of it that can be seen on the machine, to look for once it has ended.
    ///
    /// # Errors
    /// When it is not to be seen even now.
    pub fn traces(&self) -> anyhow::Result<Traces> {
        Traces::of(self.state())
    }

    /// What the API server was asked so far, by whom, and what it answered; in the order of time. Of Kubernetes' own
    /// programs only their changes are in it.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audit_log(&self) -> anyhow::Result<Vec<Entry>> {
        audit::read(&self.hold.state().join("audit.log"))
    }

    async fn run(&self, program: &str, arguments: &[&str], patience: Duration) -> anyhow::Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        timed(command, patience).await
    }
}

/// [`child::run`] with a deadline.
async fn timed(command: Command, patience: Duration) -> anyhow::Result<String> {
    let line = format!("{command:?}");
    let ran = tokio::time::timeout(patience, child::run(INSTALL, command)).await;
    ran.with_context(|| format!("{line}: no end within {patience:?}"))?
}
