//! The API server's word on `operator/fixtures`: what the unit tests say of each, a real one says too.

use std::path::{Path, PathBuf};

use e2e::cluster::Cluster;

use crate::rig;

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
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let Some((old, new)) = text.split_once("\n---\n") else {
        let made = cluster.kubectl(&["create", "--dry-run=server", "--filename", &write("new.yaml", text)]).await;
        return made.map(drop).map_err(|error| format!("{error:#}"));
    };
    let (old, new) = (write("old.yaml", old), write("new.yaml", new));
    cluster.kubectl(&["create", "--filename", &old]).await.map_err(|error| format!("the first document: {error:#}"))?;
    let replaced = cluster.kubectl(&["replace", "--dry-run=server", "--filename", &new]).await;
    cluster.kubectl(&["delete", "--filename", &old]).await.unwrap();
    replaced.map(drop).map_err(|error| format!("{error:#}"))
}

/// On one line, so that a message can be looked for however it was wrapped.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_accepts_and_refuses_each_fixture_with_the_message_that_a_user_reads() {
    let cluster = Cluster::start().await.unwrap();
    rig::install_definition(&cluster).await.unwrap();
    let (accepted, rejected) = (fixtures("accept"), fixtures("reject"));
    assert!(accepted.len() >= 15 && rejected.len() >= 30, "{} and {}", accepted.len(), rejected.len());
    let mut wrong = Vec::new();
    for (name, text) in &accepted {
        if let Err(said) = judged(&cluster, text).await {
            wrong.push(format!("{name} was refused: {said}"));
        }
    }
    for (name, text) in &rejected {
        let message = text.lines().next().unwrap().trim_start_matches("# rejected: ");
        match judged(&cluster, text).await {
            Ok(()) => wrong.push(format!("{name} was accepted")),
            Err(said) if said.starts_with("the first document") => wrong.push(format!("{name}: {said}")),
            Err(said) if !flat(&said).contains(message) => wrong.push(format!("{name}: not `{message}` but {said}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} accepted, {} refused", accepted.len(), rejected.len());
    cluster.end().await.unwrap();
}
