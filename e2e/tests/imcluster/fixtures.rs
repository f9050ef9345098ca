//! The API server's word on `operator/fixtures`: what the unit tests say of each, a real one says too.

use std::path::{Path, PathBuf};

use e2e::cluster::Cluster;

use super::rig;

const UNWATCHED: &str = "fixtures";

/// Every fixture of a folder, by name.
fn fixtures(folder: &str) -> Vec<(String, String)> {
    let folder = rig::root().join("operator/fixtures").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// What the API server says of a fixture: nothing is kept but the first document of an update.
async fn judged(cluster: &Cluster, text: &str) -> Result<(), String> {
    let kubectl = async |verb: &[&str], document: &str| {
        let done = cluster.kubectl_on(document, &[verb, &["--namespace", UNWATCHED]].concat()).await;
        done.map(drop).map_err(|error| format!("{error:#}"))
    };
    let Some((old, new)) = text.split_once("\n---\n") else {
        return kubectl(&["create", "--dry-run=server"], text).await;
    };
    kubectl(&["create"], old).await.map_err(|error| format!("the first document: {error}"))?;
    let replaced = kubectl(&["replace", "--dry-run=server"], new).await;
    kubectl(&["delete"], old).await.unwrap();
    replaced
}

/// On one line, so that a message can be looked for however it was wrapped.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Asks it of every fixture, in a namespace that no operator watches.
pub async fn judge_all(cluster: &Cluster) {
    cluster.kubectl(&["create", "namespace", UNWATCHED]).await.unwrap();
    let (accepted, rejected) = (fixtures("accept"), fixtures("reject"));
    assert!(accepted.len() >= 15 && rejected.len() >= 30, "{} and {}", accepted.len(), rejected.len());
    let mut wrong = Vec::new();
    for (name, text) in &accepted {
        if let Err(said) = judged(cluster, text).await {
            wrong.push(format!("{name} was refused: {said}"));
        }
    }
    for (name, text) in &rejected {
        let message = text.lines().next().unwrap().trim_start_matches("# rejected: ");
        match judged(cluster, text).await {
            Ok(()) => wrong.push(format!("{name} was accepted")),
            Err(said) if said.starts_with("the first document") => wrong.push(format!("{name}: {said}")),
            Err(said) if !flat(&said).contains(message) => wrong.push(format!("{name}: not `{message}` but {said}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} accepted, {} refused", accepted.len(), rejected.len());
}
