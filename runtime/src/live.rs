//! Settings that change without a restart: one TOML file, read at the start and again when told.
//!
//! Told by SIGHUP; in a pod by any change of the file, which the kubelet brings soonest when the pod's annotation
//! [`crate::pod::CONFIG_ANNOTATION`] is written. A file that cannot be used changes nothing: the settings in force stay,
//! and `/status` says why (`reloadError`) beside the hash of what is in force (`configHash`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::admin::Status;
use crate::annotations::Annotations;
use crate::pod;
use crate::watched::Watched;

/// How often the file is looked at in a pod.
const LOOK: Duration = Duration::from_millis(250);

/// The file of one process, and what came of it. Cheap to clone. The default has no file.
#[derive(Clone, Debug, Default)]
pub struct Live {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    source: Option<(PathBuf, Annotations)>,
    again: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hash: Option<String>,
    error: Option<String>,
}

impl Live {
    /// The settings of this file, in a pod with these annotations.
    pub fn new(path: &Path, annotations: Annotations) -> Self {
        let shared = Shared { source: Some((path.to_owned(), annotations)), ..Shared::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Has the file read again, changed or not.
    pub fn reload(&self) {
        self.shared.again.notify_one();
    }

    /// What names the file in force ([`pod::live_hash`]); `None` while there was none.
    pub fn hash(&self) -> Option<String> {
        self.shared.state.lock().hash.clone()
    }

    /// Why the file that was read last is not in force.
    pub fn error(&self) -> Option<String> {
        self.shared.state.lock().error.clone()
    }

    /// Adds `configHash` and `reloadError`.
    pub fn describe(&self, status: &Status) {
        let (hash, error) = (self.clone(), self.clone());
        status.part("configHash", move || hash.hash().into());
        status.part("reloadError", move || error.error().into());
    }

    /// Gives the settings to `apply`: once before this returns, if the file is there, then whenever it is read again.
    /// What `apply` refuses, in words, is said and changes nothing. One follower at a time.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn follow<T: DeserializeOwned>(&self, mut apply: impl FnMut(T) -> Result<(), String> + Send + 'static) {
        let Some((path, annotations)) = self.shared.source.clone() else {
            return;
        };
        let mut file = Watched::new(path);
        self.take(&mut file, Watched::news, &mut apply);
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                let in_a_pod = !annotations.borrow().is_empty();
                tokio::select! {
                    () = this.shared.again.notified() => {
                        this.take(&mut file, |file| file.read().map(Some), &mut apply);
                    }
                    () = tokio::time::sleep(LOOK), if in_a_pod => this.take(&mut file, Watched::news, &mut apply),
                }
            }
        });
    }

    fn take<T: DeserializeOwned>(
        &self,
        file: &mut Watched,
        read: impl FnOnce(&mut Watched) -> io::Result<Option<Vec<u8>>>,
        apply: &mut impl FnMut(T) -> Result<(), String>,
    ) {
        let found = read(file).map_err(|error| error.to_string());
        let Some(applied) = found.transpose().map(|bytes| {
            let bytes = bytes?;
            apply(parse(&bytes)?)?;
            Ok(pod::live_hash(&bytes))
        }) else {
            return;
        };
        let applied = applied.map_err(|why: String| format!("{}: {why}", file.path().display()));
        let mut state = self.shared.state.lock();
        match applied {
            Ok(hash) => {
                tracing::info!(file = %file.path().display(), hash, "live settings are in force");
                *state = State { hash: Some(hash), error: None };
            }
            Err(error) => {
                tracing::error!(error, "live settings are of no use, the old ones stay in force");
                state.error = Some(error);
            }
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "expected UTF-8".to_owned())?;
    toml::from_str(text).map_err(|error| {
        let line = text[..error.span().map_or(0, |span| span.start)].matches('\n').count() + 1;
        format!("line {line}: {}", error.message().replace('\n', ", "))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::watch;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        speed: u32,
    }

    struct Followed {
        live: Live,
        applied: Arc<Mutex<Vec<u32>>>,
        folder: tempfile::TempDir,
    }

    impl Followed {
        fn start(text: Option<&str>, annotations: Annotations) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("live.toml");
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let live = Live::new(&path, annotations);
            let applied = Arc::<Mutex<Vec<u32>>>::default();
            live.follow({
                let applied = applied.clone();
                move |Sample { speed }| match speed {
                    0 => Err("speed: expected more than 0".to_owned()),
                    speed => Ok(applied.lock().push(speed)),
                }
            });
            Self { live, applied, folder }
        }

        fn write(&self, text: &str) {
            let new = self.folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, self.folder.path().join("live.toml")).unwrap();
        }

        async fn eventually(&self, what: &str, so: impl Fn(&Self) -> bool) {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
            while !so(self) {
                assert!(tokio::time::Instant::now() < deadline, "not so: {what}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn a_hang_up_has_it_read_again_and_a_bad_file_changes_nothing() {
        let followed = Followed::start(Some("speed = 1\n"), crate::annotations::none());
        assert_eq!(*followed.applied.lock(), [1]);
        assert_eq!(followed.live.hash(), Some(pod::live_hash(b"speed = 1\n")));
        let status = Status::default();
        followed.live.describe(&status);

        for (bad, why) in [
            ("speed = 1\nsped = 2", "live.toml: line 2: unknown field `sped`"),
            ("speed = 0", "live.toml: speed: expected more than 0"),
            ("speed = ", "live.toml: line 1: "),
        ] {
            followed.write(bad);
            followed.live.reload();
            followed.eventually(bad, |it| it.live.error().is_some_and(|error| error.contains(why))).await;
            assert_eq!(status.report()["configHash"], pod::live_hash(b"speed = 1\n"));
        }
        assert!(status.report()["reloadError"].is_string());
        followed.write("speed = 2\n");
        followed.live.reload();
        followed.eventually("it is used", |it| *it.applied.lock() == [1, 2]).await;
        assert_eq!(status.report(), serde_json::json!({"configHash": pod::live_hash(b"speed = 2\n")}));
    }

    #[tokio::test]
    async fn outside_a_pod_only_a_hang_up_counts_and_in_one_every_change() {
        let alone = Followed::start(None, crate::annotations::none());
        let annotated = BTreeMap::from([("kubernetes.io/config.source".to_owned(), "api".to_owned())]);
        let (_pod, annotations) = watch::channel(Arc::new(annotated));
        let in_a_pod = Followed::start(None, annotations);
        assert_eq!((alone.live.hash(), alone.live.error()), (None, None));
        for followed in [&alone, &in_a_pod] {
            followed.write("speed = 3\n");
        }
        in_a_pod.eventually("it is used", |it| *it.applied.lock() == [3]).await;
        assert!(alone.applied.lock().is_empty());
        alone.live.reload();
        alone.eventually("it is used", |it| *it.applied.lock() == [3]).await;
    }

    #[tokio::test]
    async fn a_hang_up_without_a_file_says_so() {
        let followed = Followed::start(None, crate::annotations::none());
        followed.live.reload();
        followed.eventually("it is said", |it| it.live.error().is_some()).await;
        assert_eq!(followed.live.hash(), None);
    }
}
