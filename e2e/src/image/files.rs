//! What is in an archive or an image: paths and where their content comes from; written as tar or into a folder.
//!
//! The same content gives the same bytes: sorted, owned by root, dated 1970, with one mode for programs and one for the
//! rest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Path without a slash in front → what is there. Every folder above a path is there, too.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(BTreeMap<String, Entry>);

/// What is at a path.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// A folder and its mode.
    Folder(u32),
    /// A copy of this file; whether it may be run.
    Copy(PathBuf, bool),
    /// A file with this content.
    Bytes(Vec<u8>),
}

impl Files {
    /// Adds an entry, and the folders above it that are not there yet.
    pub(super) fn insert(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Entry::Folder(0o755));
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// Adds a copy of a file, or of a folder with everything in it but the names to leave out. Links are followed; those
    /// that lead nowhere are left out.
    pub(super) fn copy(&mut self, path: &str, from: &Path, leave: &[String]) -> anyhow::Result<()> {
        let found = fs::metadata(from).with_context(|| format!("{path} is to be a copy of {}", from.display()))?;
        if !found.is_dir() {
            self.insert(path, Entry::Copy(from.to_owned(), found.permissions().mode() & 0o111 != 0));
            return Ok(());
        }
        self.insert(path, Entry::Folder(0o755));
        for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            let name = name.map_err(|name| anyhow::anyhow!("{} holds {name:?}, which is no text", from.display()))?;
            if entry.path().exists() && !leave.contains(&name) {
                self.copy(&format!("{path}/{name}"), &entry.path(), leave)?;
            }
        }
        Ok(())
    }

    /// The path in the image and the source of every copy.
    pub(super) fn copies(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.0.iter().filter_map(|(path, entry)| match entry {
            Entry::Copy(from, _) => Some((path.as_str(), from.as_path())),
            Entry::Folder(_) | Entry::Bytes(_) => None,
        })
    }

    /// Writes all of it as a tar.
    pub(super) fn write_tar(&self, to: impl Write) -> anyhow::Result<()> {
        let mut tar = tar::Builder::new(to);
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_mode(entry.mode());
            let written = match entry {
                Entry::Folder(_) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    tar.append_data(&mut header, format!("{path}/"), io::empty())
                }
                Entry::Bytes(bytes) => {
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, path, bytes.as_slice())
                }
                Entry::Copy(from, _) => {
                    let file = File::open(from).with_context(|| format!("open {}", from.display()))?;
                    let size = file.metadata()?.len();
                    header.set_size(size);
                    tar.append_data(&mut header, path, file.take(size))
                }
            };
            written.with_context(|| format!("write {path} into the archive"))?;
        }
        tar.into_inner()?.flush().context("write the archive")
    }

    /// Writes all of it into a folder, which need not be there.
    pub(super) fn write_folder(&self, root: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
        for (path, entry) in &self.0 {
            let target = root.join(path);
            let written = match entry {
                Entry::Folder(_) => fs::create_dir_all(&target),
                Entry::Bytes(bytes) => fs::write(&target, bytes),
                Entry::Copy(from, _) => fs::copy(from, &target).map(|_| ()),
            };
            let written = written.and_then(|()| fs::set_permissions(&target, PermissionsExt::from_mode(entry.mode())));
            written.with_context(|| format!("write {}", target.display()))?;
        }
        Ok(())
    }
}

impl Entry {
    fn mode(&self) -> u32 {
        match self {
            Self::Folder(mode) => *mode,
            Self::Copy(_, true) => 0o755,
            Self::Copy(_, false) | Self::Bytes(_) => 0o644,
        }
    }
}
