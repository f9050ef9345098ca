//! The wall clock of a host's processes, which jumps when a test says so. A kernel has a wall clock of its own for no
//! namespace, so libfaketime stands between a process and libc. Time that only goes forward (`CLOCK_MONOTONIC`) is left
//! alone.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::os;

/// Where Debian has the library.
const LIBRARY: &str = "-linux-gnu/faketime/libfaketimeMT.so.1";
const INSTALL: &str = "apt-get install libfaketime";
/// What the library reads how far the clock is off from.
const FILE: &str = "clock";

/// One clock; clones are the same.
#[derive(Clone, Debug)]
pub struct Clock {
    folder: Arc<TempDir>,
    library: String,
}

impl Clock {
    /// One that is right.
    ///
    /// # Errors
    /// When the library is missing; the text says what to install.
    pub fn new() -> anyhow::Result<Self> {
        let library = format!("/usr/lib/{}{LIBRARY}", std::env::consts::ARCH);
        ensure!(std::path::Path::new(&library).is_file(), "{library} is not there: {INSTALL}");
        let folder = tempfile::Builder::new().prefix("imcluster-clock-").tempdir()?;
        let clock = Self { folder: Arc::new(folder), library };
        clock.set(0)?;
        Ok(clock)
    }

    /// Jumps, within a second: from now on it is so many seconds ahead of the machine's, or behind it.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set(&self, ahead: i64) -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.folder.path())?;
        writeln!(file, "{ahead:+}")?;
        file.persist(self.folder.path().join(FILE)).context("set a clock")?;
        Ok(())
    }

    /// Lets a command have this clock.
    pub(super) fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", self.folder.path().join(FILE));
        // It looks once a second.
        command.envs([("FAKETIME_CACHE_DURATION", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
        // It keeps something in shared memory, which would stay behind when the process is killed.
        os::start_with_own_memory(command);
    }
}
