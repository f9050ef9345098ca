//! Where a run leaves what a person may want to look at afterwards: logs, reports, screenshots.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The folder: `IMCLUSTER_ARTEFACTS`, else `artefacts/` beside the workspace's `Cargo.toml`. Git ignores it.
///
/// # Errors
/// When it cannot be made.
pub fn folder() -> std::io::Result<PathBuf> {
    let folder = std::env::var_os("IMCLUSTER_ARTEFACTS")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../artefacts")), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A log file's path that nobody else in any run of this moment uses: `logs/<name>-<our pid>-<number>.log`.
///
/// # Errors
/// When the folder cannot be made.
pub fn log(name: &str) -> std::io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let logs = folder()?.join("logs");
    std::fs::create_dir_all(&logs)?;
    Ok(logs.join(format!("{name}-{}-{}.log", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))))
}
