//! A broker's jars: fetched from Maven Central once, kept in the user's cache.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::{cache, child};

const POM: &str = include_str!("../../kafka/pom.xml");

/// The folder that holds them: `${XDG_CACHE_HOME:-~/.cache}/imcluster/kafka-<hash of the pom>/libs`. Whoever comes first
/// fills it while the others wait.
pub(crate) async fn folder() -> anyhow::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    POM.hash(&mut hasher);
    let folder = cache::folder()?.join(format!("kafka-{:016x}", hasher.finish()));
    let libs = folder.join("libs");
    if libs.exists() {
        return Ok(libs);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let _one_at_a_time = cache::lock(&folder.join("lock")).await?;
    if !libs.exists() {
        fetch(&folder, &libs).await.context("fetch Kafka's jars")?;
    }
    Ok(libs)
}

async fn fetch(folder: &Path, libs: &Path) -> anyhow::Result<()> {
    let (pom, partial) = (folder.join("pom.xml"), folder.join("libs.partial"));
    std::fs::write(&pom, POM)?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "-f"]).arg(&pom).args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    maven.arg(format!("-DoutputDirectory={}", partial.display()));
    child::run("apt-get install maven default-jre-headless", maven).await?;
    std::fs::rename(&partial, libs).context("put the jars in place")
}
