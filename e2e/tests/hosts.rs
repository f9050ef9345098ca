//! Processes at hosts of their own: their lines are cut and held up, and their clocks jump, and nobody else's.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use e2e::child::Child;
use e2e::eventually;
use e2e::host::{Clock, Host};
use e2e::network::{Harm, LATE, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
/// Longer than anything on the line takes, and shorter than it is harmed for.
const HARMED: Duration = Duration::from_secs(3);

/// Says back what it hears, at a host, until it is dropped.
fn echo(host: &Host) -> (Child, SocketAddr) {
    let (port, at) = (host.port().unwrap(), host.clone());
    let address = port.address();
    let child = Child::start("echo", "apt-get install socat", move || {
        let mut command = Command::new("socat");
        command.arg(format!("TCP-LISTEN:{},fork,reuseaddr", address.port())).arg("EXEC:cat");
        at.inside(command)
    });
    (child.unwrap(), address)
}

/// Says one byte at a host to another, and waits for it to come back.
async fn ask(host: &Host, address: SocketAddr, patience: Duration) -> anyhow::Result<()> {
    let mut command = Command::new("socat");
    command.args(["-", &format!("TCP:{address},connect-timeout=60")]);
    let mut command = tokio::process::Command::from(host.inside(command));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(b"x").await?;
    let mut answer = [0];
    timeout(patience, stdout.read_exact(&mut answer)).await.context("no answer")??;
    Ok(())
}

async fn network() -> Network {
    Network::start().await.unwrap()
}

#[tokio::test]
async fn hosts_and_the_middle_reach_each_other_by_their_own_addresses() {
    let network = network().await;
    let (one, other) = (network.host().await.unwrap(), network.host().await.unwrap());
    assert_ne!(one.address(), other.address());
    let (_echo, address) = echo(&other);
    eventually(SOON, "an answer", || ask(&one, address, SOON)).await.unwrap();
    network.run(TcpStream::connect(address)).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_cut_hears_nothing_until_it_is_mended_and_others_hear_all_the_time() {
    let network = network().await;
    let (one, other, third) =
        (network.host().await.unwrap(), network.host().await.unwrap(), network.host().await.unwrap());
    let (_echo, address) = echo(&other);
    eventually(SOON, "an answer", || ask(&one, address, SOON)).await.unwrap();
    let (these, those) = ([one.address()], [other.address()]);
    let cut = network.harm(Harm::Cut, &these, &those, HARMED * 3);
    let meanwhile = async {
        tokio::time::sleep(HARMED / 3).await;
        assert!(ask(&one, address, HARMED).await.is_err(), "cut");
        ask(&third, address, HARMED).await.unwrap();
    };
    tokio::join!(cut, meanwhile).0.unwrap();
    eventually(SOON, "an answer again", || ask(&one, address, SOON)).await.unwrap();
}

#[tokio::test]
async fn what_is_late_is_held_back_on_both_ways_and_arrives() {
    let network = network().await;
    let (one, other) = (network.host().await.unwrap(), network.host().await.unwrap());
    let (_echo, address) = echo(&other);
    eventually(SOON, "an answer", || ask(&one, address, SOON)).await.unwrap();
    let (these, those) = ([one.address()], [other.address()]);
    let late = network.harm(Harm::Late, &these, &those, HARMED * 2);
    let meanwhile = async {
        tokio::time::sleep(HARMED / 3).await;
        let began = Instant::now();
        ask(&one, address, SOON).await.unwrap();
        began.elapsed()
    };
    let (harmed, took) = tokio::join!(late, meanwhile);
    harmed.unwrap();
    // There and back for the connection, there and back for the byte.
    assert!(took >= LATE * 4, "{took:?}");
}

#[tokio::test]
async fn harms_that_overlap_end_one_by_one() {
    let network = network().await;
    let (one, other) = (network.host().await.unwrap(), network.host().await.unwrap());
    let (_echo, address) = echo(&other);
    eventually(SOON, "an answer", || ask(&one, address, SOON)).await.unwrap();
    let (these, those) = ([one.address()], [other.address()]);
    let brief = async {
        network.harm(Harm::Late, &these, &those, Duration::ZERO).await.unwrap();
        network.harm(Harm::Cut, &those, &these, Duration::ZERO).await.unwrap();
        assert!(ask(&one, address, HARMED).await.is_err(), "the longer one still cuts");
    };
    tokio::join!(network.harm(Harm::Cut, &these, &those, HARMED * 3), brief).0.unwrap();
    eventually(SOON, "an answer again", || ask(&one, address, SOON)).await.unwrap();
}

const HOUR: i64 = 3600;

#[tokio::test]
async fn a_process_sees_its_clock_jump_and_jump_back_and_goes_on() {
    let clock = Clock::new().unwrap();
    let host = Host::loopback().with_clock(clock.clone());
    let child = Child::start("clock", "it is part of every system", move || {
        let mut command = Command::new("bash");
        command.args(["-c", r"while :; do printf '%(%s)T\n' -1; sleep 0.1; done"]);
        host.inside(command)
    });
    let child = child.unwrap();
    for ahead in [0, HOUR, -HOUR, 0] {
        clock.set(ahead).unwrap();
        eventually(SOON, &format!("{ahead} s ahead"), || async {
            let (told, now) = (child.output(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?);
            let told: i64 = told.lines().last().context("nothing yet")?.parse()?;
            let off = told - now.as_secs().cast_signed() - ahead;
            ensure!(off.abs() < HOUR / 2, "it is {off} s off");
            anyhow::Ok(())
        })
        .await
        .unwrap();
    }
}
