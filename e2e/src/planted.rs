//! Secrets that tests make, and the search for them in whatever a run leaves behind: no log may hold one, at any level.
//!
//! Who makes a secret plants it, which notes it in `planted` among the artefacts. At the end of a run `secrets` searches
//! everything else there, for each secret as it is and as programs show bytes: base64, hexadecimal, a list of numbers.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::artefacts;

/// The name of the file they are noted in.
const NOTES: &str = "planted";
/// What is planted: a whole run has all of it.
pub const KINDS: [&str; 7] =
    ["kafka-password", "redis-password", "push-token", "jwt-secret", "client-token", "message-body", "private-key"];
/// Whose logs a whole run has.
const LOGS: [&str; 3] = ["comet-", "job-", "logic-"];
/// Shorter ones would be found where they are not.
const SHORTEST: usize = 16;

/// A secret of this kind that nobody had before, noted.
///
/// # Panics
/// As [`note`].
pub fn secret(kind: &'static str) -> String {
    let secret = format!("planted-{kind}-{:032x}", rand::random::<u128>());
    note(kind, &secret);
    secret
}

/// Notes a secret that was made elsewhere.
///
/// # Panics
/// When it is too short to be told from other text, of no kind of [`KINDS`], or cannot be noted.
pub fn note(kind: &'static str, secret: &str) {
    assert!(KINDS.contains(&kind), "{kind}: expected one of {KINDS:?}");
    assert!(secret.len() >= SHORTEST && !secret.contains(['\n', '\t']), "a {kind} that nobody could search for");
    let line = format!("{kind}\t{secret}\n");
    let notes = artefacts::folder().map(|folder| folder.join(NOTES));
    // One write: several processes note at a time.
    let noted =
        notes.and_then(|path| OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes()));
    noted.expect("secrets can be noted among the artefacts");
}

/// Notes a private key: each line of its PEM that is not the same in every key.
///
/// # Panics
/// As [`note`].
pub fn note_key(pem: &str) {
    pem.lines().filter(|line| !line.starts_with("-----") && line.len() >= SHORTEST).for_each(|line| {
        note("private-key", line);
    });
}

/// Looks for secrets.
#[derive(Debug)]
pub struct Search {
    shapes: AhoCorasick,
    /// Of each shape.
    kinds: Vec<String>,
}

/// A secret where none should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: String,
    /// In this file.
    pub file: PathBuf,
    /// Behind so many bytes.
    pub at: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a {} at byte {}", self.file.display(), self.kind, self.at)
    }
}

impl Search {
    /// For everything that was planted since the notes were begun.
    ///
    /// # Errors
    /// When there are none.
    pub fn noted() -> anyhow::Result<Self> {
        let path = artefacts::folder()?.join(NOTES);
        let notes = std::fs::read_to_string(&path)
            .with_context(|| format!("{}: nothing was planted in this run", path.display()))?;
        Self::of(&notes)
    }

    fn of(notes: &str) -> anyhow::Result<Self> {
        let planted: BTreeSet<(&str, &str)> = notes.lines().filter_map(|line| line.split_once('\t')).collect();
        let shapes: Vec<(&str, Vec<u8>)> = planted
            .iter()
            .flat_map(|(kind, secret)| shapes(secret).into_iter().map(move |shape| (*kind, shape)))
            .collect();
        let kinds = shapes.iter().map(|(kind, _)| (*kind).to_owned()).collect();
        Ok(Self { shapes: AhoCorasick::new(shapes.iter().map(|(_, shape)| shape))?, kinds })
    }

    /// The first of each kind in this file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&self, file: &Path) -> anyhow::Result<Vec<Found>> {
        let mut found: Vec<Found> = Vec::new();
        let reader = File::open(file).with_context(|| format!("open {}", file.display()))?;
        for place in self.shapes.stream_find_iter(reader) {
            let place = place.with_context(|| format!("read {}", file.display()))?;
            let kind = &self.kinds[place.pattern().as_usize()];
            if !found.iter().any(|before| before.kind == *kind) {
                found.push(Found { kind: kind.clone(), file: file.to_owned(), at: place.start() });
            }
        }
        Ok(found)
    }
}

/// How a secret may look in a log.
fn shapes(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers = format!("{bytes:?}");
    let mut shapes = vec![bytes.to_vec(), hex.into_bytes(), numbers.trim_matches(['[', ']']).into()];
    // Base64 of something that holds it looks one of three ways, by where it begins.
    for skipped in 0..3 {
        let whole = &bytes[skipped..][..(bytes.len() - skipped) / 3 * 3];
        shapes.extend([STANDARD_NO_PAD.encode(whole).into_bytes(), URL_SAFE_NO_PAD.encode(whole).into_bytes()]);
    }
    shapes
}

/// Searches everything in the folder of a whole run's artefacts; says how much that was.
///
/// # Errors
/// When a secret is found, when some kind was never planted, or when a service left no log: then nothing was shown.
pub fn search(artefacts: &Path) -> anyhow::Result<String> {
    let notes = std::fs::read_to_string(artefacts.join(NOTES)).context("nothing was planted in this run")?;
    for kind in KINDS {
        ensure!(notes.lines().any(|line| line.starts_with(&format!("{kind}\t"))), "no {kind} was planted in this run");
    }
    let (search, files) = (Search::of(&notes)?, files(artefacts)?);
    for service in LOGS {
        let is_log = |file: &PathBuf| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(service) && file.extension().is_some_and(|extension| extension == "log")
        };
        let is_full = |file: &PathBuf| file.metadata().is_ok_and(|meta| meta.len() > 0);
        ensure!(files.iter().any(|file| is_log(file) && is_full(file)), "no log of {service} was there to be searched");
    }
    let mut found = Vec::new();
    for file in &files {
        found.extend(search.file(file)?);
    }
    let lines: Vec<String> = found.iter().map(Found::to_string).collect();
    ensure!(found.is_empty(), "secrets are where none may be:\n{}", lines.join("\n"));
    Ok(format!("{} secrets were planted, and none is in {} files", notes.lines().count(), files.len()))
}

/// Every file below the folder but the notes.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("read {}", next.display()))? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path != folder.join(NOTES) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "planted-push-token-0123456789abcdef";

    /// What a whole run leaves behind, with this in one of its logs.
    fn run(said: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        for service in LOGS {
            std::fs::write(folder.path().join(format!("logs/{service}1-1.log")), format!("up\n{said}\n")).unwrap();
        }
        let notes: String = KINDS.iter().map(|kind| format!("{kind}\t{SECRET}{kind}\n")).collect();
        std::fs::write(folder.path().join(NOTES), notes).unwrap();
        folder
    }

    #[test]
    fn a_secret_is_found_in_every_way_of_showing_it() {
        assert!(search(run("nothing, not even planted-push-token-").path()).unwrap().contains("in 3 files"));
        let secret = format!("{SECRET}push-token");
        let bytes = secret.as_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut shown = vec![secret.clone(), format!("{secret:?}"), format!("{bytes:?}"), hex];
        for before in ["", "x", "xy", "xyz"] {
            shown.push(STANDARD_NO_PAD.encode(format!("{before}{secret}?>")));
            shown.push(URL_SAFE_NO_PAD.encode(format!("{before}{secret}?>")));
        }
        for shown in shown {
            let folder = run(&format!("token={shown} refused"));
            let told = search(folder.path()).unwrap_err().to_string();
            assert!(told.contains("/logs/comet-1-1.log: a push-token at byte"), "{shown}: {told}");
            assert!(!told.contains(SECRET), "the search itself is silent: {told}");
        }
    }

    #[test]
    fn a_run_that_planted_or_logged_nothing_shows_nothing() {
        let folder = run("");
        for service in LOGS {
            let log = folder.path().join(format!("logs/{service}1-1.log"));
            std::fs::rename(&log, folder.path().join("aside")).unwrap();
            assert!(search(folder.path()).unwrap_err().to_string().contains(service), "{service}");
            std::fs::write(&log, "").unwrap();
            assert!(search(folder.path()).unwrap_err().to_string().contains(service), "{service}");
            std::fs::rename(folder.path().join("aside"), &log).unwrap();
        }
        let notes = std::fs::read_to_string(folder.path().join(NOTES)).unwrap();
        for kind in KINDS {
            std::fs::write(folder.path().join(NOTES), notes.replace(&format!("{kind}\t"), "other\t")).unwrap();
            assert_eq!(search(folder.path()).unwrap_err().to_string(), format!("no {kind} was planted in this run"));
        }
        std::fs::remove_file(folder.path().join(NOTES)).unwrap();
        assert_eq!(search(folder.path()).unwrap_err().to_string(), "nothing was planted in this run");
    }
}
