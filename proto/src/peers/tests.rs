use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use parking_lot::Mutex;

use super::*;

#[test]
fn a_list_names_addresses_and_where_needed_server_ids() {
    let Source::Fixed(peers) = "127.0.0.1:3109, go-1=comet.example:3109,[::1]:3109".parse().unwrap() else {
        panic!("a fixed list");
    };
    assert_eq!(peers[0], Peer::at("127.0.0.1:3109"));
    assert_eq!(peers[1], Peer { id: Some("go-1".into()), ..Peer::at("comet.example:3109") });
    assert_eq!(peers[2], Peer::at("[::1]:3109"));
}

#[test]
fn a_name_and_a_service_may_leave_their_port_out() {
    let slices = |namespace: Option<&str>, port| Source::EndpointSlices {
        namespace: namespace.map(Into::into),
        service: "comet".into(),
        port,
    };
    for (text, source) in [
        ("dns:comet.im.svc:3109", Source::Dns("comet.im.svc:3109".into())),
        ("dns:comet", Source::Dns("comet:3109".into())),
        ("endpointslices:comet", slices(None, None)),
        ("endpointslices:im/comet:9", slices(Some("im"), Some(9))),
    ] {
        assert_eq!(text.parse(), Ok(source), "{text}");
    }
}

#[test]
fn anything_else_is_refused_with_what_was_expected() {
    for text in [
        "",
        "comet",
        "comet:x",
        "comet:70000",
        ":3109",
        "=h:1",
        "a:1,,b:2",
        "::1:3109",
        "dns:",
        "dns:h:x",
        "endpointslices:",
        "endpointslices:/comet",
        "endpointslices:a/b/c",
    ] {
        let error = text.parse::<Source>().unwrap_err().to_string();
        assert!(error.starts_with("expected host:port"), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_fixed_list_is_known_at_once_and_never_ends() {
    let mut followed = watch("127.0.0.1:1,127.0.0.1:2".parse().unwrap());
    followed.known().await;
    assert_eq!(followed.peers.borrow_and_update().len(), 2);
    assert_eq!(followed.age(), Duration::ZERO);
    tokio::task::yield_now().await;
    assert!(followed.peers.has_changed().is_ok(), "its source is still there");
}

#[tokio::test]
async fn localhost_is_followed_through_the_systems_resolver() {
    let followed = watch("dns:localhost:3109".parse().unwrap());
    followed.known().await;
    let peers = followed.peers.borrow().clone();
    assert!(peers.iter().all(|peer| peer.ready && peer.address.ends_with(":3109")), "{peers:?}");
    assert!(peers.iter().any(|peer| peer.address == "127.0.0.1:3109" || peer.address == "[::1]:3109"), "{peers:?}");
}

type Answer = io::Result<Vec<SocketAddr>>;

/// Follows a name that answers what it is told to, one answer a look-up, then for ever the last of them failing.
fn scripted(answers: impl IntoIterator<Item = Answer>) -> Followed {
    let answers = Mutex::new(answers.into_iter().collect::<VecDeque<_>>());
    let (board, followed) = Board::new();
    let lookup = move |name: String| {
        assert_eq!(name, "comet:3109");
        let answer = answers.lock().pop_front();
        async move { answer.unwrap_or_else(|| Err(io::Error::other("no such name"))) }
    };
    tokio::spawn(dns::follow("comet:3109".into(), Duration::from_millis(1), lookup, board));
    followed
}

fn addresses(ports: &[u16]) -> Answer {
    Ok(ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect())
}

#[tokio::test]
async fn a_name_that_stops_answering_keeps_its_last_list_and_tells_its_age() {
    let mut followed = scripted([addresses(&[2, 1, 2]), addresses(&[1, 2])]);
    followed.known().await;
    let expected = [Peer::at("127.0.0.1:1"), Peer::at("127.0.0.1:2")];
    assert_eq!(**followed.peers.borrow_and_update(), expected, "sorted, each once");
    assert!(followed.trouble().is_none());
    followed.state.wait_for(|state| state.trouble.is_some()).await.unwrap();
    assert_eq!(followed.trouble().as_deref(), Some("comet:3109: no such name"));
    assert!(!followed.peers.has_changed().unwrap(), "another order is no other list");
    assert_eq!(**followed.peers.borrow(), expected);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(followed.age() > Duration::ZERO);
}

#[tokio::test]
async fn a_name_without_an_answer_yet_is_not_known() {
    let mut followed = scripted([addresses(&[]), addresses(&[7])]);
    followed.state.wait_for(|state| state.trouble.is_some()).await.unwrap();
    assert_eq!(followed.trouble().as_deref(), Some("comet:3109 has no address"));
    assert!(!followed.is_known());
    followed.known().await;
    assert_eq!(**followed.peers.borrow(), [Peer::at("127.0.0.1:7")]);
    assert_eq!(followed.age(), Duration::ZERO, "it answers again");
}

#[tokio::test]
async fn a_source_nobody_follows_any_more_is_let_go() {
    let (board, followed) = Board::new();
    let lookup = |_| async { addresses(&[1]) };
    let task = tokio::spawn(dns::follow("comet:3109".into(), Duration::from_millis(1), lookup, board));
    drop(followed);
    task.await.unwrap();
}
