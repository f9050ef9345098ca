//! What happened and when, printed as it goes and kept among the artefacts for whoever has to understand a fault.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use parking_lot::Mutex;

use crate::artefacts;

/// A file that says what was printed.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Begins one for this seed: `chaos-<seed>.md` among the artefacts, in place of an earlier one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(seed: u64) -> anyhow::Result<Self> {
        let path = artefacts::folder()?.join(format!("chaos-{seed}.md"));
        let file = File::create(&path).with_context(|| format!("write {}", path.display()))?;
        Ok(Self { path, file: Mutex::new(file) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says this, also when it is not the end of a line: what was begun is seen also when it has no end.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn say(&self, text: impl Display) -> io::Result<()> {
        print!("{text}");
        io::stdout().flush()?;
        write!(self.file.lock(), "{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_there_at_once() {
        let seed = u64::from(std::process::id()) << 32;
        let journal = Journal::begin(seed).unwrap();
        journal.say("| 1 | begun |").unwrap();
        assert_eq!(std::fs::read_to_string(journal.path()).unwrap(), "| 1 | begun |");
        journal.say(" done |\n").unwrap();
        assert_eq!(std::fs::read_to_string(journal.path()).unwrap(), "| 1 | begun | done |\n");
        std::fs::remove_file(journal.path()).unwrap();
    }
}
