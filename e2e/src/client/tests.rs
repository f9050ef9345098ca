use std::time::Duration;

use super::*;
use crate::scripted::{Fault, ScriptedComet};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_client_gets_replies_by_number_and_pushes_one_by_one() {
    for scheme in ["tcp", "ws"] {
        let comet = ScriptedComet::start(Fault::None).await;
        let dial = Dial { source: Some([127, 0, 1, 9].into()), tls: None };
        let mut client = Client::connect(&comet.target(scheme), &dial).await.unwrap();
        assert!(client.auth("{}").await.unwrap().body.is_empty());
        comet.push(1, 2, 3, Duration::ZERO);
        assert_eq!(client.heartbeat().await.unwrap(), 5);
        assert_eq!(client.change_room("a://1").await.unwrap().body, "a://1");
        assert_eq!(client.subscribe(&[1000, 1001]).await.unwrap().body, "1000,1001");
        let (op, body) = client.push_within(SOON).await.unwrap();
        assert_eq!((op, crate::stamp::Stamp::decode(&body).unwrap().number), (1000, 3), "{scheme}");
    }
}

#[tokio::test]
async fn a_client_says_how_it_was_closed() {
    let comet = ScriptedComet::start(Fault::Refuse).await;
    let mut client = Client::connect(&comet.target("ws"), &Dial::default()).await.unwrap();
    client.send(op::AUTH, b"{}").await.unwrap();
    assert_eq!(client.closed_within(SOON).await.unwrap(), None);
}
