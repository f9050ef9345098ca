//! What an image is made of, as `e2e/images/<name>.toml` says: its files and what a container engine is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use super::files::{Entry, Files};
use super::libraries;

/// Where the recipes are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/images");

/// One of the files there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    /// What a container runs when it is told nothing else.
    pub entrypoint: Vec<String>,
    /// As whom: numbers, so that Kubernetes can see that it is not root.
    pub user: String,
    /// Where it listens.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What tools show about it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Empty folders that anybody may write to.
    #[serde(default)]
    writable: Vec<String>,
    /// Names that are left out of the folders in `files`.
    #[serde(default)]
    leave: Vec<String>,
    /// Path in the image → a path of this system, a file beside the recipe, or `{something}` that is looked for.
    files: BTreeMap<String, String>,
}

impl Recipe {
    /// Reads one.
    pub(super) fn read(name: &str) -> anyhow::Result<Self> {
        let path = Path::new(FOLDER).join(name).with_extension("toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("read {}", path.display()))
    }

    /// The files, with the libraries of those that are programs. `places` says where something in braces is; a name
    /// that it does not have is a program's and looked for as a shell does.
    pub(super) async fn files(&self, places: &BTreeMap<&str, PathBuf>) -> anyhow::Result<Files> {
        let mut files = Files::default();
        for (path, from) in &self.files {
            files.copy(path, &source(from, places)?, &self.leave)?;
        }
        libraries::add(&mut files).await?;
        for folder in &self.writable {
            files.insert(folder, Entry::Folder(0o1777));
        }
        Ok(files)
    }
}

fn source(from: &str, places: &BTreeMap<&str, PathBuf>) -> anyhow::Result<PathBuf> {
    let Some((name, rest)) = from.strip_prefix('{').and_then(|named| named.split_once('}')) else {
        return Ok(Path::new(FOLDER).join(from));
    };
    let place = match places.get(name) {
        Some(place) => place.clone(),
        None => program(name)?,
    };
    Ok(if rest.is_empty() { place } else { place.join(rest.trim_start_matches('/')) })
}

/// The real place of a program that a shell would find.
pub(super) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
    let found = found.with_context(|| format!("`{name}` is not on PATH: install it"))?;
    found.canonicalize().with_context(|| format!("where is {} really?", found.display()))
}
