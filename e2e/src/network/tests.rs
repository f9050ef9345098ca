use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::child::Child;
use crate::eventually;

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
    let (command, asked) = (host.inside(command), "x");
    let mut child = tokio::process::Command::from(command);
    child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = child.spawn()?;
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(asked.as_bytes()).await?;
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
    let from_the_middle = async move {
        let listener = TcpListener::bind((MIDDLE, 0)).await.unwrap();
        TcpStream::connect(address).await.map(|_| listener.local_addr().unwrap())
    };
    network.run(from_the_middle).await.unwrap().unwrap();
    // Nothing of it is to be seen from outside.
    assert!(TcpStream::connect(address).await.is_err() || timeout(HARMED, TcpStream::connect(address)).await.is_err());
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

#[test]
fn a_cut_is_asked_for_before_a_delay() {
    let (from, to) = (Ipv4Addr::new(198, 19, 0, 10), Ipv4Addr::new(198, 19, 0, 11));
    assert_eq!(Harm::Cut.rule(from, to, 7), "from 198.19.0.10 to 198.19.0.11 pref 1007 blackhole");
    assert_eq!(Harm::Late.rule(from, to, 7), "from 198.19.0.10 to 198.19.0.11 pref 20007 lookup 77");
}
