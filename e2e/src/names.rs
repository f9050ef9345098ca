//! Names that lead where a test wants them to, for the processes that are started with them: a hosts file of their own,
//! which the resolver of the C library reads anew at every question, as it does with a Service's name.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::process::Command;

use anyhow::Context;
use parking_lot::Mutex;
use tempfile::NamedTempFile;

/// What tells that the process could not be given the file: it takes root.
pub const INSTALL: &str = "run as root, with unshare and mount of util-linux";
/// Puts its first argument in the place of the hosts file, for itself and whatever it becomes.
const INSIDE: &str = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;

/// Names and where they lead.
#[derive(Debug)]
pub struct Names {
    file: NamedTempFile,
    known: Mutex<BTreeMap<String, Ipv4Addr>>,
}

impl Names {
    /// None yet but `localhost`.
    ///
    /// # Errors
    /// When there is no room for a file.
    pub fn new() -> anyhow::Result<Self> {
        let file = tempfile::Builder::new().prefix("imcluster-hosts-").tempfile().context("make a hosts file")?;
        let names = Self { file, known: Mutex::default() };
        names.lead("localhost", Ipv4Addr::LOCALHOST)?;
        Ok(names)
    }

    /// From now on this name leads there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn lead(&self, name: &str, to: Ipv4Addr) -> anyhow::Result<()> {
        let mut known = self.known.lock();
        known.insert(name.to_owned(), to);
        let lines: String = known.iter().map(|(name, to)| format!("{to} {name}\n")).collect();
        // In place: another file of that name would not be the one that the processes see. And never empty in between.
        let file = self.file.as_file();
        file.write_all_at(lines.as_bytes(), 0).context("write a hosts file")?;
        file.set_len(lines.len() as u64).context("end a hosts file")
    }

    /// A command that runs this program, which knows these names and no others. It keeps its process id.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh"])
            .arg(self.file.path())
            .arg(program);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_where_it_is_led_for_whoever_is_started_with_it() {
        let names = Names::new().unwrap();
        let asks = |name: &str| {
            let answer = names.command("getent").args(["-s", "files", "ahostsv4", name]).output().unwrap();
            String::from_utf8(answer.stdout).unwrap().split_whitespace().next().map(str::to_owned)
        };
        names.lead("store.test", Ipv4Addr::new(127, 0, 0, 1)).unwrap();
        assert_eq!(asks("store.test").as_deref(), Some("127.0.0.1"));
        names.lead("store.test", Ipv4Addr::new(127, 0, 0, 9)).unwrap();
        assert_eq!(asks("store.test").as_deref(), Some("127.0.0.9"));
        let outside = Command::new("getent").args(["-s", "files", "ahostsv4", "store.test"]).output().unwrap();
        assert!(outside.stdout.is_empty(), "{outside:?}");
    }
}
