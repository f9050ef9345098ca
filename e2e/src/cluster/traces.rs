//! What a cluster is to the machine that it runs on: so that a test can look for it when it is said to be gone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Namespace;

/// The identities of a cluster's folder, namespaces and cgroups. Another cluster has others.
#[derive(Debug)]
pub struct Traces {
    state: String,
    files: Vec<(PathBuf, u64)>,
    /// As `/proc/<pid>/ns/` shows them: `net:[4026532177]`.
    namespaces: BTreeSet<String>,
}

impl Traces {
    /// Of the cluster that is up and has this folder.
    pub(super) fn of(state: &Path) -> anyhow::Result<Self> {
        let mut namespaces = BTreeSet::new();
        let mut files = vec![(state.to_owned(), inode(state).context("the cluster's folder")?)];
        for network in [Namespace::Cluster, Namespace::Node2, Namespace::Client] {
            let path = Path::new("/run/netns").join(network.name());
            let number = inode(&path).with_context(|| format!("{} is not there", path.display()))?;
            namespaces.insert(format!("net:[{number}]"));
            files.push((path, number));
        }
        for node in ["node1.pid", "node2.pid"] {
            let file = state.join("run").join(node);
            let pid = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            for kind in ["pid", "mnt"] {
                let link = fs::read_link(format!("/proc/{}/ns/{kind}", pid.trim())).context("a node's namespaces")?;
                namespaces.insert(link.to_string_lossy().into_owned());
            }
        }
        let before = files.len();
        for folder in controllers() {
            files.extend(inode(&folder).map(|number| (folder, number)));
        }
        anyhow::ensure!(files.len() > before, "there is no cgroup imk8s");
        Ok(Self { state: state.to_string_lossy().into_owned(), files, namespaces })
    }

    /// What of it is still there, a line each: processes, mounts, network namespaces, cgroups, files.
    ///
    /// # Errors
    /// When the machine cannot be looked at.
    pub fn left(&self) -> anyhow::Result<Vec<String>> {
        let same = |(path, number): &&(PathBuf, u64)| inode(path) == Some(*number);
        let mut found: Vec<_> = self.files.iter().filter(same).map(|(path, _)| path.display().to_string()).collect();
        for process in fs::read_dir("/proc")?.flatten().map(|entry| entry.path()) {
            let inside = ["net", "pid", "mnt"].iter().any(|kind| {
                let link = fs::read_link(process.join("ns").join(kind));
                link.is_ok_and(|link| self.namespaces.contains(link.to_string_lossy().as_ref()))
            });
            // A process that has ended meanwhile has no line, and none of the namespaces.
            let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " ");
            if inside || line.contains(&self.state) {
                found.push(format!("{} {line}", process.display()));
            }
        }
        let ours = |line: &&str| line.contains(&self.state) || self.namespaces.iter().any(|name| line.contains(name));
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        found.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
        Ok(found)
    }
}

/// The cgroup of all pods: one in each hierarchy of version 1, or one in version 2.
fn controllers() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join("imk8s")).collect()
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}
