//! An image in one file: an [OCI image layout](https://github.com/opencontainers/image-spec/blob/main/image-layout.md)
//! as a tar, with the list that older `docker load` reads beside it.
//!
//! `ctr --namespace k8s.io images import`, `skopeo copy oci-archive:` and `docker load --input` take it.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::files::{Entry, Files};
use super::recipe::Recipe;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// When everything was made, so that the same content is the same image.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A name as container engines keep it: registry, repository and tag, nothing left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    repository: String,
    pub tag: String,
}

impl Name {
    /// Completes what a user writes as Docker and the kubelet do: `imcluster` is `docker.io/library/imcluster:latest`.
    pub(super) fn parse(name: &str) -> anyhow::Result<Self> {
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (name, "latest"),
        };
        let is_good = |part: &str, more: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let wanted = "an image's name is [REGISTRY/]REPOSITORY[:TAG], the repository in lower case";
        anyhow::ensure!(is_good(tag, "_.-"), "`{name}`: {wanted}");
        anyhow::ensure!(repository.split('/').all(|part| is_good(part, "_.-:")), "`{name}`: {wanted}");
        let (registry, path) = match repository.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => ("docker.io", repository),
        };
        anyhow::ensure!(!path.contains(|c: char| c.is_ascii_uppercase() || c == ':'), "`{name}`: {wanted}");
        let library = if registry == "docker.io" && !path.contains('/') { "library/" } else { "" };
        Ok(Self { repository: format!("{registry}/{library}{path}"), tag: tag.to_owned() })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

/// Writes the archive, whole or not at all, and returns the image's digest (`sha256:…`, that of its manifest).
pub(super) fn write(
    to: &Path,
    name: &Name,
    labels: &BTreeMap<String, String>,
    recipe: &Recipe,
    files: &Files,
) -> anyhow::Result<String> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let layer = NamedTempFile::new_in(folder).with_context(|| format!("write into {}", folder.display()))?;
    let mut hashed = Hashed { to: BufWriter::new(layer.as_file()), sha: Sha256::new(), size: 0 };
    files.write_tar(&mut hashed)?;
    let (layer_digest, layer_size) = (hex(hashed.sha), hashed.size);

    let mut archive = Files::default();
    archive.insert(&blob(&layer_digest), Entry::Copy(layer.path().to_owned(), false));
    let mut add = |media: &str, content: &Value| {
        let bytes = content.to_string().into_bytes();
        let (digest, size) = (hex(Sha256::new_with_prefix(&bytes)), bytes.len() as u64);
        archive.insert(&blob(&digest), Entry::Bytes(bytes));
        (digest.clone(), descriptor(media, &digest, size))
    };
    let (config_digest, config) = add(CONFIG, &settings(labels, recipe, &layer_digest));
    let layers = [descriptor(LAYER, &layer_digest, layer_size)];
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    let (digest, mut manifest) = add(MANIFEST, &manifest);
    manifest["platform"] = platform();
    manifest["annotations"] = json!({
        "io.containerd.image.name": name.to_string(),
        "org.opencontainers.image.ref.name": name.tag,
    });
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
    let docker =
        json!([{"Config": blob(&config_digest), "RepoTags": [name.to_string()], "Layers": [blob(&layer_digest)]}]);
    for (path, content) in
        [("oci-layout", json!({"imageLayoutVersion": "1.0.0"})), ("index.json", index), ("manifest.json", docker)]
    {
        archive.insert(path, Entry::Bytes(content.to_string().into_bytes()));
    }
    let mut whole = NamedTempFile::new_in(folder)?;
    archive.write_tar(BufWriter::new(&mut whole))?;
    whole.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
    whole.persist(to).with_context(|| format!("write {}", to.display()))?;
    Ok(format!("sha256:{digest}"))
}

fn settings(labels: &BTreeMap<String, String>, recipe: &Recipe, layer: &str) -> Value {
    let mut config = platform();
    config["created"] = json!(CREATED);
    config["config"] = json!({
        "User": recipe.user,
        "ExposedPorts": recipe.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect::<BTreeMap<_, _>>(),
        "Env": recipe.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "Entrypoint": recipe.entrypoint,
        "WorkingDir": "/",
        "Labels": labels,
    });
    config["rootfs"] = json!({"type": "layers", "diff_ids": [format!("sha256:{layer}")]});
    config["history"] = json!([{"created": CREATED, "created_by": "imcluster: make image"}]);
    config
}

/// This machine's, by the names of Go, which the standard uses.
fn platform() -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({"architecture": architecture, "os": "linux"})
}

fn descriptor(media: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": media, "digest": format!("sha256:{digest}"), "size": size})
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn hex(sha: Sha256) -> String {
    format!("{:x}", sha.finalize())
}

/// Passes on what it is given, and knows the hash and the length of it.
struct Hashed<W> {
    to: W,
    sha: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.to.write(bytes)?;
        self.sha.update(&bytes[..taken]);
        self.size += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
