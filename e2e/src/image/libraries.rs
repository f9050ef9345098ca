//! The shared libraries that programs need: what `ldd` names, all the way down.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::files::{Entry, Files};

/// Adds, at the path where the loader looks for it, each library that something in `files` needs and that is not among
/// them yet.
pub(super) async fn add(files: &mut Files) -> anyhow::Result<()> {
    let copies: Vec<(String, PathBuf)> =
        files.copies().map(|(path, from)| (path.to_owned(), from.to_owned())).collect();
    // A program may bring libraries of its own, which it finds by its own place.
    let own: BTreeSet<PathBuf> = copies.iter().filter_map(|(_, from)| from.canonicalize().ok()).collect();
    let names: BTreeSet<&OsStr> = copies.iter().filter_map(|(path, _)| Path::new(path).file_name()).collect();
    let mut libraries = BTreeMap::new();
    for (_, from) in &copies {
        if !is_elf(from)? {
            continue;
        }
        for line in ldd(from).await?.lines() {
            match Need::parse(line) {
                Some(Need::Found(at)) if at.canonicalize().is_ok_and(|real| own.contains(&real)) => {}
                Some(Need::Found(at)) => _ = libraries.insert(at.to_string_lossy().into_owned(), at),
                Some(Need::Missing(name)) if names.contains(OsStr::new(name)) => {}
                Some(Need::Missing(name)) => {
                    anyhow::bail!("{} needs {name}, which is not here: install it", from.display())
                }
                None => {}
            }
        }
    }
    for (at, from) in libraries {
        files.insert(&at, Entry::Copy(from, true));
    }
    Ok(())
}

/// What one line of ldd's says.
#[derive(Debug, PartialEq, Eq)]
enum Need<'a> {
    Found(PathBuf),
    Missing(&'a str),
}

impl<'a> Need<'a> {
    /// `None` for what is no file: the kernel's page, or that nothing is needed.
    fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim();
        if let Some((name, _)) = line.split_once(" => not found") {
            return Some(Self::Missing(name));
        }
        let (_, place) = line.split_once(" => ").unwrap_or(("", line));
        let (path, _) = place.split_once(" (0x")?;
        path.starts_with('/').then(|| Self::Found(PathBuf::from(path)))
    }
}

async fn ldd(program: &Path) -> anyhow::Result<String> {
    let mut ldd = tokio::process::Command::new("ldd");
    ldd.arg(program).env("LC_ALL", "C").env_remove("LD_LIBRARY_PATH").env_remove("LD_PRELOAD");
    let output = ldd.output().await.context("start ldd, which comes with glibc")?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let answered = output.status.success() || said.contains("not a dynamic executable");
    anyhow::ensure!(answered, "ldd {}: {}\n{said}", program.display(), output.status);
    Ok(said.into_owned())
}

fn is_elf(path: &Path) -> anyhow::Result<bool> {
    let mut magic = Vec::new();
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    file.take(4).read_to_end(&mut magic)?;
    Ok(magic == *b"\x7fELF")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_understood() {
        let at = |path: &str| Some(Need::Found(PathBuf::from(path)));
        assert_eq!(
            Need::parse("\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f3db79e1000)"),
            at("/lib/x86_64-linux-gnu/libz.so.1")
        );
        assert_eq!(
            Need::parse("\t/lib64/ld-linux-x86-64.so.2 (0x00007f3db97f2000)"),
            at("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(Need::parse("\tlibjvm.so => not found"), Some(Need::Missing("libjvm.so")));
        for nothing in
            ["\tlinux-vdso.so.1 (0x00007f3db97f0000)", "\tstatically linked", "\tnot a dynamic executable", ""]
        {
            assert_eq!(Need::parse(nothing), None, "{nothing}");
        }
    }

    #[tokio::test]
    async fn a_program_brings_its_libraries_and_their_loader() {
        let mut files = Files::default();
        files.copy("/bin/sh", Path::new("/bin/sh"), &[]).unwrap();
        add(&mut files).await.unwrap();
        let names: Vec<&str> = files.copies().filter_map(|(path, _)| path.rsplit('/').next()).collect();
        assert!(names.contains(&"libc.so.6"), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("ld-linux")), "{names:?}");
    }

    #[tokio::test]
    async fn what_is_no_program_brings_nothing() {
        let mut files = Files::default();
        files.copy("/etc/passwd", Path::new("/etc/passwd"), &[]).unwrap();
        add(&mut files).await.unwrap();
        assert_eq!(files.copies().count(), 1);
    }
}
