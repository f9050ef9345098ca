//! What is fetched or made once and used by every run: `${XDG_CACHE_HOME:-~/.cache}/imcluster`.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The folder, which is there.
///
/// # Errors
/// When neither variable is set or it cannot be made.
pub fn folder() -> anyhow::Result<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")));
    let folder = cache.context("where is the cache? set HOME or XDG_CACHE_HOME")?.join("imcluster");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// Waits until nobody else holds this file, which is made; holds it until the answer is dropped.
///
/// # Errors
/// When it cannot be made or locked.
pub async fn lock(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await?.context("lock the cache")
}
