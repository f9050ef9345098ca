//! Signal → token. Whoever works waits on the token; `run` returns when its work is done, and the process ends.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::live::Live;

/// Told to stop, or not yet. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Not yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells everybody to stop.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether we were told to stop.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until we are told to stop. Cancel safe.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + 'static {
        self.token.clone().cancelled_owned()
    }
}

/// The first SIGTERM, SIGINT or SIGQUIT begins the shutdown, the second ends the process at once with code 130.
/// SIGHUP has the live settings read again; goim takes it and does nothing.
///
/// # Errors
/// When a handler cannot be installed.
pub(crate) fn on_signals(shutdown: Shutdown, live: Live) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
                _ = quit.recv() => "SIGQUIT",
                _ = hup.recv() => {
                    live.reload();
                    continue;
                }
            };
            if shutdown.has_begun() {
                tracing::warn!(signal = name, "second signal, ending at once");
                std::process::exit(130);
            }
            tracing::info!(signal = name, "stopping");
            shutdown.begin();
        }
    });
    Ok(())
}
