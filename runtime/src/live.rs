//! Settings that change without a restart: one TOML file, read at the start and again when told.
//!
//! Told by SIGHUP; in a pod by any change of the file, which the kubelet brings soonest when the pod's annotation
//! [`crate::pod::CONFIG_ANNOTATION`] is written. A file that cannot be used changes nothing: the settings in force stay,
//! and `/status` says why (`reloadError`) beside the hash of what is in force (`configHash`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::admin::Status;
use crate::annotations::Annotations;
use crate::config::{self, FileKeys, Loaded, ProcessConfig};
use crate::pod;
use crate::telemetry::Telemetry;
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
    source: Option<Source>,
    again: Notify,
    state: Mutex<State>,
}

/// What there is to read.
#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    origin: config::Origin,
    annotations: Annotations,
    telemetry: Telemetry,
}

#[derive(Debug, Default)]
struct State {
    hash: Option<String>,
    error: Option<String>,
}

impl Live {
    /// The file of this process, in a pod with these annotations; `telemetry` is told what to log.
    pub fn new(config: &ProcessConfig, annotations: Annotations, telemetry: Telemetry) -> Self {
        let source = Source { path: config.live.clone(), origin: config.origin.clone(), annotations, telemetry };
        Self { shared: Arc::new(Shared { source: Some(source), ..Shared::default() }) }
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

    /// Gives the service's settings, those of the file among them, to `apply`: once before this returns, if the file is
    /// there, then whenever it is read again. One follower at a time.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn follow<C: FileKeys>(&self, mut apply: impl FnMut(C) + Send + 'static) {
        let Some(source) = self.shared.source.clone() else {
            return;
        };
        let mut file = Watched::new(&source.path);
        self.take(&source, file.news(), &mut apply);
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = this.shared.again.notified() => this.take(&source, file.read().map(Some), &mut apply),
                    () = tokio::time::sleep(LOOK) => {
                        // There are annotations in every pod.
                        if !source.annotations.borrow().is_empty() {
                            this.take(&source, file.news(), &mut apply);
                        }
                    }
                }
            }
        });
    }

    fn take<C: FileKeys>(&self, source: &Source, found: io::Result<Option<Vec<u8>>>, apply: &mut impl FnMut(C)) {
        let Some(found) = found.transpose() else {
            return;
        };
        let applied = found.map_err(|error| format!("{}: {error}", source.path.display())).and_then(|bytes| {
            let Loaded { service, process, .. } = source.read::<C>(&bytes)?;
            source.telemetry.log(&process.log)?;
            apply(service);
            Ok(pod::live_hash(&bytes))
        });
        let mut state = self.shared.state.lock();
        match applied {
            Ok(hash) => {
                tracing::info!(file = %source.path.display(), hash, "live settings are in force");
                *state = State { hash: Some(hash), error: None };
            }
            Err(error) => {
                tracing::error!(error, "live settings are of no use, the old ones stay in force");
                state.error = Some(error);
            }
        }
    }
}

impl Source {
    fn read<C: FileKeys>(&self, bytes: &[u8]) -> Result<Loaded<C>, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| format!("{}: expected UTF-8", self.path.display()))?;
        config::reload(&self.origin, &self.path, text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use tokio::sync::watch;

    use super::*;
    use crate::config::FileKey;

    #[derive(Clone, Debug, clap::Args)]
    struct Sample {
        /// How fast.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
        top_speed: u32,
        /// Which way.
        #[arg(long, default_value = "up")]
        way: String,
    }

    impl FileKeys for Sample {
        const KEYS: &'static [(&'static str, FileKey)] = &[];

        fn live() -> Vec<String> {
            vec!["log".to_owned(), "topSpeed".to_owned()]
        }
    }

    struct Followed {
        live: Live,
        applied: Arc<Mutex<Vec<u32>>>,
        folder: tempfile::TempDir,
    }

    impl Followed {
        /// A process with these flags beside those of its files.
        fn start(text: Option<&str>, annotations: Annotations, flags: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            if let Some(text) = text {
                std::fs::write(path("live.toml"), text).unwrap();
            }
            std::fs::write(path("config.toml"), "[imcluster]\ntopSpeed = 5\n").unwrap();
            let files = [("--live", path("live.toml")), ("--config", path("config.toml"))];
            let argv = files.into_iter().flat_map(|(flag, path)| [OsString::from(flag), path.into()]);
            let argv = argv.chain(flags.iter().map(OsString::from));
            let loaded = config::load::<Sample>("sample", "", argv, &|_| None).unwrap();
            let live = Live::new(&loaded.process, annotations, Telemetry::default());
            let applied = Arc::<Mutex<Vec<u32>>>::default();
            live.follow({
                let applied = applied.clone();
                move |Sample { top_speed, .. }| applied.lock().push(top_speed)
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
        let followed = Followed::start(Some("topSpeed = 1\n"), crate::annotations::none(), &[]);
        assert_eq!(*followed.applied.lock(), [1]);
        assert_eq!(followed.live.hash(), Some(pod::live_hash(b"topSpeed = 1\n")));
        let status = Status::default();
        followed.live.describe(&status);

        for (bad, why) in [
            (
                "topSpeed = 1\nway = \"down\"",
                "live.toml: way cannot change while this service runs: expected some of log, topSpeed",
            ),
            ("topSpeed = 0", "topSpeed is `0`"),
            ("log = \"a=b=c\"", "log is `a=b=c`"),
            ("topSpeed = ", "live.toml: line 1: expected TOML"),
        ] {
            followed.write(bad);
            followed.live.reload();
            followed.eventually(why, |it| it.live.error().is_some_and(|error| error.contains(why))).await;
            assert_eq!(status.report()["configHash"], pod::live_hash(b"topSpeed = 1\n"));
        }
        assert!(status.report()["reloadError"].is_string());
        followed.write("[imcluster]\ntopSpeed = 2\n");
        followed.live.reload();
        followed.eventually("it is used", |it| *it.applied.lock() == [1, 2]).await;
        let hash = pod::live_hash(b"[imcluster]\ntopSpeed = 2\n");
        assert_eq!(status.report(), serde_json::json!({"configHash": hash}));
        followed.write("");
        followed.live.reload();
        followed.eventually("what it no longer says is as before", |it| *it.applied.lock() == [1, 2, 5]).await;
    }

    #[tokio::test]
    async fn it_wins_over_the_other_file_and_a_flag_wins_over_it() {
        let text = Some("topSpeed = 3\n");
        assert_eq!(*Followed::start(text, crate::annotations::none(), &[]).applied.lock(), [3]);
        assert_eq!(*Followed::start(text, crate::annotations::none(), &["--top-speed", "9"]).applied.lock(), [9]);
    }

    #[tokio::test]
    async fn outside_a_pod_only_a_hang_up_counts_and_in_one_every_change() {
        let alone = Followed::start(None, crate::annotations::none(), &[]);
        let annotated = BTreeMap::from([("kubernetes.io/config.source".to_owned(), "api".to_owned())]);
        let (_pod, annotations) = watch::channel(Arc::new(annotated));
        let in_a_pod = Followed::start(None, annotations, &[]);
        assert_eq!((alone.live.hash(), alone.live.error()), (None, None));
        for followed in [&alone, &in_a_pod] {
            followed.write("topSpeed = 3\n");
        }
        in_a_pod.eventually("it is used", |it| *it.applied.lock() == [3]).await;
        assert!(alone.applied.lock().is_empty());
        alone.live.reload();
        alone.eventually("it is used", |it| *it.applied.lock() == [3]).await;
    }

    #[tokio::test]
    async fn a_hang_up_without_a_file_says_so() {
        let followed = Followed::start(None, crate::annotations::none(), &[]);
        followed.live.reload();
        followed.eventually("it is said", |it| it.live.error().is_some()).await;
        assert_eq!(followed.live.hash(), None);
    }
}
