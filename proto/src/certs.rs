//! Certificates and keys in files: read at the start, and again when the files change.
//!
//! What is in use stays in use while the files are of no use, and a connection that exists keeps what it began with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// How often the files are looked at. Kubernetes swaps a mounted Secret within a minute or so; this adds little.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Files that cannot be used: which, and why. Nothing of a private key is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CertsError(String);

impl CertsError {
    /// With this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A file as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for File {
    /// Its name, never what it holds: that may be a private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.fmt(f)
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, CertsError> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self { path: path.to_owned(), bytes }),
            Err(error) => Err(CertsError(format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// What is wrong with it, with its name before it.
    pub fn error(&self, why: impl std::fmt::Display) -> CertsError {
        CertsError(format!("{} {why}", self.path.display()))
    }

    /// The certificates in it, at least one.
    ///
    /// # Errors
    /// When it is not PEM or holds none.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CertsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let chain = chain.map_err(|error| self.error(format_args!("is not PEM: {error}")))?;
        if chain.is_empty() { Err(self.error("holds no certificate")) } else { Ok(chain) }
    }

    /// The certificates in it with the private key in `key`.
    ///
    /// # Errors
    /// When one of them holds no such thing, or they do not belong together.
    pub fn with_key(&self, key: &Self) -> Result<CertifiedKey, CertsError> {
        let chain = self.certificates()?;
        let found = PrivateKeyDer::from_pem_slice(&key.bytes)
            .map_err(|error| key.error(format_args!("holds no private key in PEM: {error}")))?;
        CertifiedKey::from_der(chain, found, &rustls::crypto::ring::default_provider())
            .map_err(|error| key.error(format_args!("is not the key of {}: {error}", self.path.display())))
    }
}

type Make<T> = dyn Fn(&[File]) -> Result<T, CertsError> + Send + Sync;

/// What was made of some files, made anew when they change.
pub struct Reloaded<T> {
    paths: Vec<PathBuf>,
    make: Box<Make<T>>,
    current: ArcSwap<T>,
    /// What the files held when we last looked; `None` = they could not be read.
    seen: Mutex<Option<Vec<File>>>,
    trouble: Mutex<Option<String>>,
    /// Files that changed and are in use.
    pub reloads: Counter,
    /// Files that changed into something unusable; what was before them stays in use.
    pub reload_errors: Counter,
}

impl<T> std::fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.paths).finish()
    }
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads the files and makes of them what `make` does, which is given them in this order.
    ///
    /// # Errors
    /// One line naming the file that cannot be read or does not fit.
    pub fn load(
        paths: Vec<PathBuf>,
        make: impl Fn(&[File]) -> Result<T, CertsError> + Send + Sync + 'static,
    ) -> Result<Self, CertsError> {
        let files = read(&paths)?;
        Ok(Self {
            current: ArcSwap::from_pointee(make(&files)?),
            make: Box::new(make),
            seen: Mutex::new(Some(files)),
            trouble: Mutex::default(),
            reloads: Counter::default(),
            reload_errors: Counter::default(),
            paths,
        })
    }

    /// What is in use now.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Why the files, as they are now, are not in use.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Puts the files to use if they changed since we last looked, and says whether. An error is said once per change.
    /// Contents are compared, not times: they are small, and a mounted Secret changes by a link.
    ///
    /// # Errors
    /// As [`Self::load`]; what was in use stays so.
    pub fn look(&self) -> Result<bool, CertsError> {
        let mut seen = self.seen.lock();
        let read = read(&self.paths);
        if seen.as_ref() == read.as_ref().ok() {
            return Ok(false);
        }
        *seen = None;
        let files = seen.insert(read?);
        self.current.store(Arc::new((self.make)(files)?));
        Ok(true)
    }

    /// Looks at the files again and again. Never ends; may be dropped at any time.
    pub async fn follow(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.look()).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => {
                    self.reloads.inc();
                    *self.trouble.lock() = None;
                    tracing::info!(files = ?self, "certificates changed and are in use");
                }
                Ok(Err(error)) => {
                    self.reload_errors.inc();
                    tracing::error!(%error, "certificates changed and cannot be used, keeping the old ones");
                    *self.trouble.lock() = Some(error.to_string());
                }
                Err(error) => tracing::error!(%error, "looking at certificate files failed"),
            }
        }
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<File>, CertsError> {
    paths.iter().map(|path| File::read(path)).collect()
}
