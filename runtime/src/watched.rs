//! A file that others replace: looked at often, read only when it is another one than before.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file and what was seen of it. The kubelet replaces mounted files by swapping a symbolic link, which shows here as
/// another inode.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Watched {
    /// A file of which nothing was seen yet; it need not be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), seen: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, if that may be news since it was last read. A file that is not there is none: it is being
    /// replaced, or nobody wrote it yet.
    ///
    /// # Errors
    /// When it is there and cannot be read; tried again only when it changes.
    pub fn news(&mut self) -> io::Result<Option<Vec<u8>>> {
        let stamp = self.stamp();
        if stamp.is_none() || stamp == self.seen {
            return Ok(None);
        }
        // Noted before it is read: what is written meanwhile is found the next time.
        self.seen = stamp;
        std::fs::read(&self.path).map(Some)
    }

    /// What it holds, whether it changed or not.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        self.seen = self.stamp();
        std::fs::read(&self.path)
    }

    fn stamp(&self) -> Option<Stamp> {
        let meta = std::fs::metadata(&self.path).ok()?;
        Some(Stamp(meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_news_when_it_appears_and_when_its_link_is_swapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut watched = Watched::new(path("file"));
        assert_eq!(watched.news().unwrap(), None);
        assert!(watched.read().is_err());

        std::fs::write(path("first"), "1").unwrap();
        std::fs::write(path("second"), "2").unwrap();
        std::os::unix::fs::symlink(path("first"), path("file")).unwrap();
        assert_eq!(watched.news().unwrap().unwrap(), b"1");
        assert_eq!(watched.news().unwrap(), None);
        assert_eq!(watched.read().unwrap(), b"1");

        std::os::unix::fs::symlink(path("second"), path("new")).unwrap();
        std::fs::rename(path("new"), path("file")).unwrap();
        assert_eq!(watched.news().unwrap().unwrap(), b"2");
        std::fs::remove_file(path("file")).unwrap();
        assert_eq!(watched.news().unwrap(), None);
    }
}
