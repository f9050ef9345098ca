//! A process that we start, signal, start again and end. Every neighbour and every program under test is one.
//!
//! None outlives the run: dropping the handle kills it, and when the run itself is killed the kernel does.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child as Handle, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;

use crate::{artefacts, eventually};

/// A running (or ended) process and how to start it again. Its output goes to a log file among the artefacts.
pub struct Child {
    name: String,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    log: Option<PathBuf>,
    handle: Mutex<Handle>,
    ended: Mutex<Option<ExitStatus>>,
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Child").field("name", &self.name).field("pid", &self.pid()).field("log", &self.log).finish()
    }
}

impl Child {
    /// Starts what `command` builds. `install` says how one gets the program, for the error when it is missing.
    ///
    /// # Errors
    /// When the program is not there or cannot be started.
    pub fn start(
        name: &str,
        install: &str,
        command: impl Fn() -> Command + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let log = artefacts::log(name).context("a folder for logs")?;
        Self::launch(name, install, command, Some(log))
    }

    /// The same, but it writes where we write.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn attached(
        name: &str,
        install: &str,
        command: impl Fn() -> Command + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::launch(name, install, command, None)
    }

    fn launch(
        name: &str,
        install: &str,
        command: impl Fn() -> Command + Send + Sync + 'static,
        log: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let handle = logged(command(), log.as_deref()).map_err(|error| missing(&command(), install, error))?;
        Ok(Self {
            name: name.to_owned(),
            command: Box::new(command),
            log,
            handle: Mutex::new(handle),
            ended: Mutex::new(None),
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.handle.lock().id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        self.log.as_deref().unwrap_or(Path::new("/dev/stderr"))
    }

    /// Everything it has written to its log so far.
    pub fn output(&self) -> String {
        let bytes = self.log.as_ref().and_then(|log| std::fs::read(log).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How it ended, or `None` while it runs.
    pub fn exited(&self) -> Option<ExitStatus> {
        let mut ended = self.ended.lock();
        if ended.is_none() {
            *ended = self.handle.lock().try_wait().ok().flatten();
        }
        *ended
    }

    /// Sends a signal; nothing happens when it has ended.
    pub fn signal(&self, signal: i32) {
        if self.exited().is_none() {
            send(self.pid(), signal);
        }
    }

    /// Freezes it (SIGSTOP): its sockets stay open and nothing answers.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Ends it without a chance to tidy up (SIGKILL) and waits until the kernel has it gone.
    pub fn kill(&self) {
        if self.exited().is_none() {
            let status = {
                let mut handle = self.handle.lock();
                // An error means that it ended just now: waiting tells.
                let _ = handle.kill();
                handle.wait()
            };
            *self.ended.lock() = Some(status.unwrap_or(ExitStatus::from_raw(libc::SIGKILL)));
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it still runs at the deadline.
    pub async fn wait(&self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        eventually(deadline, &format!("the end of {}, see {}", self.name, self.log().display()), || async {
            self.exited()
        })
        .await
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// When it still runs at the deadline.
    pub async fn terminate(&self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(libc::SIGTERM);
        self.wait(deadline).await
    }

    /// Starts the same command again, killing it first when it still runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.kill();
        let handle =
            logged((self.command)(), self.log.as_deref()).with_context(|| format!("start {} again", self.name))?;
        *self.handle.lock() = handle;
        *self.ended.lock() = None;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When the program is missing or fails; the text holds what it wrote.
pub async fn run(install: &str, mut command: Command) -> anyhow::Result<String> {
    command.stdin(Stdio::null());
    let mut running = tokio::process::Command::from(command);
    let output = running.kill_on_drop(true).output().await;
    let output = output.map_err(|error| missing(running.as_std(), install, error))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "{:?}: {}\n{out}{err}", running.as_std(), output.status);
    Ok(out.into_owned())
}

fn missing(command: &Command, install: &str, error: io::Error) -> anyhow::Error {
    let program = command.get_program().to_string_lossy().into_owned();
    match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!("`{program}` is not there: {install}"),
        _ => anyhow::Error::new(error).context(format!("start {program}")),
    }
}

fn logged(mut command: Command, log: Option<&Path>) -> io::Result<Handle> {
    command.stdin(Stdio::null());
    if let Some(log) = log {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        command.stdout(log.try_clone()?).stderr(log);
    }
    spawn(command)
}

type Order = (Command, SyncSender<io::Result<Handle>>);

/// The kernel ends a child when the *thread* that started it ends, so all are started by one that never does.
fn spawn(mut command: Command) -> io::Result<Handle> {
    static SPAWNER: LazyLock<Sender<Order>> = LazyLock::new(|| {
        let (orders, taken) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in taken {
                // Nobody waits for the answer only when the caller is gone with its thread.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    die_with_us(&mut command);
    let (reply, answer) = sync_channel(1);
    SPAWNER.send((command, reply)).map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// Ties the child's life to ours, and keeps a terminal's Ctrl-C from reaching it before us.
#[expect(unsafe_code, reason = "the one door to fork-time calls; both are async-signal-safe")]
fn die_with_us(command: &mut Command) {
    let us = std::process::id();
    command.process_group(0);
    // SAFETY: between fork and exec only prctl and getppid are called; neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid().cast_unsigned() != us {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Sends a signal to a process that we have not reaped yet, so that the number is still its own.
#[expect(unsafe_code, reason = "the one door to kill(2)")]
fn send(pid: u32, signal: i32) {
    // SAFETY: kill takes two integers and touches no memory of ours. It fails only for a process that has ended.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &'static str) -> Child {
        Child::start("shell", "it is part of every system", move || {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        })
        .unwrap()
    }

    #[tokio::test]
    async fn what_it_prints_is_kept_and_its_status_is_known() {
        let child = shell("echo out; echo err >&2; exit 3");
        assert_eq!(child.wait(SOON).await.unwrap().code(), Some(3));
        assert_eq!(child.output(), "out\nerr\n");
    }

    #[tokio::test]
    async fn a_kill_is_seen_and_a_restart_runs_the_same_again() {
        let child = shell("echo up; exec sleep 600");
        eventually(SOON, "the first line", || async { child.output() == "up\n" }).await.unwrap();
        let first = child.pid();
        child.kill();
        assert_eq!(child.exited().unwrap().signal(), Some(libc::SIGKILL));
        child.restart().unwrap();
        assert_ne!(child.pid(), first);
        eventually(SOON, "the second line", || async { child.output() == "up\nup\n" }).await.unwrap();
        assert_eq!(child.terminate(SOON).await.unwrap().signal(), Some(libc::SIGTERM));
    }

    #[tokio::test]
    async fn a_frozen_one_does_not_move_until_it_is_let_go() {
        let child = shell("while :; do sleep 0.05; done");
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
            stat.rsplit(") ").next().unwrap().chars().next()
        };
        child.stop();
        eventually(SOON, "state T", || async { state() == Some('T') }).await.unwrap();
        child.cont();
        eventually(SOON, "another state", || async { state() != Some('T') }).await.unwrap();
    }

    #[tokio::test]
    async fn a_child_is_gone_when_its_handle_is() {
        let child = shell("exec sleep 600");
        let proc = format!("/proc/{}", child.pid());
        assert!(Path::new(&proc).exists());
        drop(child);
        assert!(!Path::new(&proc).exists());
    }

    #[tokio::test]
    async fn a_child_outlives_the_thread_that_asked_for_it() {
        let child = std::thread::spawn(|| shell("exec sleep 600")).join().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(child.exited(), None);
    }

    #[tokio::test]
    async fn a_missing_program_says_what_to_install() {
        let error = run("apt-get install nothing", Command::new("no-such-program")).await.unwrap_err();
        assert_eq!(error.to_string(), "`no-such-program` is not there: apt-get install nothing");
    }
}
