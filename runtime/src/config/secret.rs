//! Secrets come from files: as an argument, `--redis-password-file FILE`, read when the settings are read.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// A file and the secret it held at start, without the white space around it. Debug shows the path alone.
#[derive(Clone)]
pub struct SecretFile {
    path: PathBuf,
    text: Arc<str>,
}

impl SecretFile {
    /// The secret.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where it stands, to read it again.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl FromStr for SecretFile {
    type Err = String;

    fn from_str(path: &str) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("expected a file that can be read ({error})"))?;
        match text.trim() {
            "" => Err("expected a file that holds a secret, it is empty".to_owned()),
            text => Ok(Self { path: path.into(), text: text.into() }),
        }
    }
}

impl std::fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SecretFile").field(&self.path).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_trimmed_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let secret: SecretFile = path.to_str().unwrap().parse().unwrap();
        assert_eq!(secret.text(), "hunter2");
        assert_eq!(secret.path(), path);
        assert!(!format!("{secret:?}").contains("hunter2"));
        std::fs::write(&path, " \n").unwrap();
        assert!(path.to_str().unwrap().parse::<SecretFile>().unwrap_err().contains("empty"));
    }
}
