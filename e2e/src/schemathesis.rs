//! Schemathesis, which asks an HTTP API whatever its OpenAPI document allows, and what it does not, and holds the answers
//! against it. It is a Python program: what it is made of is named in `e2e/schemathesis/requirements.txt`, fetched from the
//! Python registry once, and kept in the user's cache.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::{cache, child};

const REQUIREMENTS: &str = include_str!("../schemathesis/requirements.txt");
const PYTHON: &str = "apt-get install python3 python3-venv";

/// The program, `schemathesis-<hash of the requirements>/bin/schemathesis` in the cache. Whoever comes first installs it
/// while the others wait.
///
/// # Errors
/// When Python is missing (the text says what to install) or the registry does not answer.
pub async fn program() -> anyhow::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    REQUIREMENTS.hash(&mut hasher);
    let folder = cache::folder()?.join(format!("schemathesis-{:016x}", hasher.finish()));
    let (program, complete) = (folder.join("bin/schemathesis"), folder.join("complete"));
    if complete.exists() {
        return Ok(program);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let _one_at_a_time = cache::lock(&folder.join("lock")).await?;
    if !complete.exists() {
        install(&folder).await.context("install schemathesis")?;
        std::fs::write(&complete, "").context("note that it is there")?;
    }
    Ok(program)
}

async fn install(folder: &Path) -> anyhow::Result<()> {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder);
    child::run(PYTHON, venv).await?;
    let requirements = folder.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS)?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "-r"]);
    pip.arg(&requirements);
    child::run(PYTHON, pip).await?;
    Ok(())
}
