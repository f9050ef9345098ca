//! Container images without a container engine: files of this machine packed as an OCI archive.
//!
//! Ours, and for clusters that cannot reach a registry Kafka and Redis, made from what the other tests run. All run as
//! an ordinary user, without a shell, on a root that is read-only; what they write goes to mounted folders. What is in
//! each is said in `e2e/images/<name>.toml`.

mod archive;
mod files;
mod libraries;
mod recipe;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

use self::archive::Name;
use self::files::Files;
use self::recipe::Recipe;
use crate::kafka::jars;
use crate::{cache, program};

/// Standard label: which version of the program this is. It is the tag, unless it is given.
const VERSION: &str = "org.opencontainers.image.version";

/// The images there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Image {
    /// This project's one program.
    Imcluster,
    /// One that runs any class of Kafka: `java -cp '/opt/kafka/libs/*' kafka.Kafka FILE`.
    Kafka,
    /// `redis-server` and `redis-cli`.
    Redis,
}

/// What is written on an image beside its name, such as what tells one build from another.
pub type Labels = BTreeMap<String, String>;

impl Image {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Imcluster, Self::Kafka, Self::Redis];

    /// Packs it as `name` (`[REGISTRY/]REPOSITORY[:TAG]`) into an archive and returns its digest, `sha256:…`. The same
    /// files, name and labels give the same bytes.
    ///
    /// # Errors
    /// When something that belongs into it is not on this machine; the text says what to build or install.
    pub async fn pack(self, name: &str, labels: &Labels, archive: &Path) -> anyhow::Result<String> {
        let (name, recipe) = (Name::parse(name)?, self.recipe()?);
        let files = self.files(&recipe).await?;
        let (labels, archive) = (all_labels(&recipe, &name, labels), archive.to_owned());
        let write = move || archive::write(&archive, &name, &labels, &recipe, &files);
        tokio::task::spawn_blocking(write).await?.with_context(|| format!("pack {self:?}"))
    }

    /// The archive in the user's cache, packed when it is not there or something in it has changed. For what changes
    /// rarely and is large.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub async fn cached(self, name: &str) -> anyhow::Result<PathBuf> {
        let (parsed, recipe) = (Name::parse(name)?, self.recipe()?);
        let key = fingerprint(&parsed, &recipe, &self.files(&recipe).await?)?;
        let archive = cache::folder()?.join(format!("image-{}-{key}.tar", self.stem()));
        if !archive.exists() {
            self.pack(name, &Labels::new(), &archive).await?;
        }
        Ok(archive)
    }

    /// Lays its files out in a folder, for who builds the image in another way.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub async fn lay_out(self, folder: &Path) -> anyhow::Result<()> {
        self.files(&self.recipe()?).await?.write_folder(folder)
    }

    fn stem(self) -> &'static str {
        match self {
            Self::Imcluster => "imcluster",
            Self::Kafka => "kafka",
            Self::Redis => "redis",
        }
    }

    fn recipe(self) -> anyhow::Result<Recipe> {
        Recipe::read(self.stem())
    }

    async fn files(self, recipe: &Recipe) -> anyhow::Result<Files> {
        let places = match self {
            Self::Imcluster => BTreeMap::from([("imcluster", program::binary()?)]),
            Self::Kafka => BTreeMap::from([("java", java()?), ("jars", jars::folder().await?)]),
            Self::Redis => BTreeMap::new(),
        };
        recipe.files(&places).await.with_context(|| format!("collect the files of {self:?}"))
    }
}

/// The folder of the Java that a shell would run.
fn java() -> anyhow::Result<PathBuf> {
    let program = recipe::program("java").context("apt-get install default-jre-headless")?;
    let home = program.ancestors().nth(2).filter(|home| home.join("lib/modules").is_file());
    home.map(Path::to_owned).with_context(|| format!("{} is not part of a Java 9 or newer", program.display()))
}

fn all_labels(recipe: &Recipe, name: &Name, more: &Labels) -> Labels {
    let mut labels = recipe.labels.clone();
    labels.insert(VERSION.to_owned(), name.tag.clone());
    labels.extend(more.clone());
    labels
}

/// Changes when the image would: its name, its recipe, or one of its files (by place, size and time of change).
fn fingerprint(name: &Name, recipe: &Recipe, files: &Files) -> anyhow::Result<String> {
    let mut text = format!("{name}\n{recipe:?}\n");
    for (path, from) in files.copies() {
        let found = std::fs::metadata(from).with_context(|| format!("look at {}", from.display()))?;
        let (size, changed) = (found.size(), (found.mtime(), found.mtime_nsec()));
        writeln!(text, "{path} {} {size} {changed:?}", from.display())?;
    }
    Ok(format!("{:.16}", format!("{:x}", Sha256::digest(text))))
}
