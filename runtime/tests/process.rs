//! A whole process: started, asked over its admin port, and told to stop by signals.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use clap::Parser as _;
use runtime::Process;
use runtime::config::ProcessConfig;

/// Set in the copy of this test that is the process.
const CHILD: &str = "RUNTIME_TEST_CHILD";

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    process: ProcessConfig,
}

/// Starts, says where its admin port is, waits to be told to stop; with `stubborn`, does not stop then.
#[tokio::main(flavor = "current_thread")]
async fn child(kind: &str) {
    let cli = Cli::parse_from(["child", "--admin", "127.0.0.1:0"]);
    let process = Process::start(&cli.process).await.unwrap();
    if kind == "willing" {
        process.readiness.condition("test", "nothing").up();
    }
    println!("admin={}", process.admin.unwrap());
    process.shutdown.begun().await;
    println!("told to stop");
    if kind == "stubborn" {
        std::future::pending::<()>().await;
    }
    process.end().await;
    std::process::exit(0);
}

struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    admin: String,
}

impl Running {
    /// This very test again, as a process of its own.
    fn start(test: &str, kind: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(CHILD, kind)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let admin = find(&mut lines, "admin=");
        Self { child, lines, admin }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already when the test went well.
        let _ = self.child.kill();
    }
}

/// What follows `mark` in the first line that has it.
fn find(lines: &mut std::io::Lines<BufReader<std::process::ChildStdout>>, mark: &str) -> String {
    let found = lines.find_map(|line| line.unwrap().split_once(mark).map(|(_, rest)| rest.to_owned()));
    found.unwrap_or_else(|| panic!("the process never said {mark}"))
}

#[test]
fn a_process_serves_its_admin_port_and_ends_when_told() {
    if let Ok(kind) = std::env::var(CHILD) {
        return child(&kind);
    }
    let mut running = Running::start("a_process_serves_its_admin_port_and_ends_when_told", "willing");
    assert!(running.ask("/live").ends_with("ok"));
    assert!(running.ask("/ready").starts_with("HTTP/1.1 200"));
    running.signal("HUP");
    assert!(running.ask("/live").ends_with("ok"), "a hang-up is no reason to stop");
    running.signal("TERM");
    find(&mut running.lines, "told to stop");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    if let Ok(kind) = std::env::var(CHILD) {
        return child(&kind);
    }
    let mut running = Running::start("a_second_signal_ends_the_process_at_once", "stubborn");
    running.signal("INT");
    find(&mut running.lines, "told to stop");
    assert!(running.ask("/live").ends_with("ok"), "still draining");
    assert!(running.ask("/ready").starts_with("HTTP/1.1 503"), "it never named what it waits for");
    running.signal("TERM");
    assert_eq!(running.child.wait().unwrap().code(), Some(130));
}
