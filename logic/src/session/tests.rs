use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;

use proto::log::{MemoryLog, Record};

use super::*;
use crate::auth::jwt::{Jwt, JwtConfig};
use crate::auth::signer;
use crate::queue::memory::MemoryQueue;
use crate::store::memory::MemoryStore;

struct Setup {
    sessions: Sessions,
    store: Arc<MemoryStore>,
    log: MemoryLog,
}

fn setup(limit: usize, policy: Policy) -> Setup {
    let (store, log) = (Arc::new(MemoryStore::new()), MemoryLog::new(1, 1 << 20));
    let config = SessionConfig { expire: Duration::from_secs(1800), limit, policy };
    let queue = Arc::new(MemoryQueue::new(log.clone()));
    let sessions = Sessions::new(config, Authenticator::Trust, store.clone(), queue, SessionMetrics::default());
    Setup { sessions, store, log }
}

impl Setup {
    async fn connect(&self, server: &str, body: &str) -> Result<Entered, Refused> {
        self.sessions.connect(server.into(), 1, Presented { body: body.as_bytes(), ..Presented::default() }).await
    }

    async fn at(&self, key: &str) -> Option<String> {
        let servers = self.store.locate_keys(&[key.into()]).await.unwrap();
        servers[0].as_ref().map(ToString::to_string)
    }

    async fn next_kick(&self, offset: u64) -> (String, Vec<String>) {
        let records: Vec<Record> = self.log.read(&[offset], 1).await;
        let kick = PushMsg::decode(records[0].value.clone()).unwrap();
        assert_eq!(kick.r#type(), Type::Kick);
        assert_eq!(kick.id.len(), 16);
        assert!(kick.created_ms > 0);
        assert_eq!(records[0].key, kick.keys[0].as_bytes());
        (kick.server, kick.keys)
    }
}

#[tokio::test]
async fn a_token_is_believed() {
    let setup = setup(0, Policy::Refuse);
    let token = r#"{"mid":7,"key":"phone","room_id":"test://1","platform":"web","accepts":[1000,1001]}"#;
    let before = now_ms();
    let Entered { identity, connected_ms } = setup.connect("h1", token).await.unwrap();
    let expected = Identity {
        mid: Mid(7),
        key: "phone".into(),
        room: "test://1".into(),
        accepts: vec![1000, 1001],
        rooms: None,
        connections: None,
        expires_ms: 0,
    };
    assert_eq!(identity, expected);
    assert!((before..=now_ms()).contains(&connected_ms));
    assert_eq!(setup.at("phone").await.as_deref(), Some("h1"));
}

#[tokio::test]
async fn a_connection_without_a_key_gets_a_uuid_v4() {
    let setup = setup(0, Policy::Refuse);
    for token in ["{}", r#"{"key":""}"#, "null"] {
        let Entered { identity, .. } = setup.connect("h1", token).await.unwrap();
        assert_eq!(identity.key.as_str().len(), 36);
        assert_eq!(Uuid::parse_str(identity.key.as_str()).unwrap().get_version_num(), 4);
        assert!(identity.mid.is_anonymous());
    }
}

#[tokio::test]
async fn a_token_that_is_none_is_refused_and_leaves_nothing() {
    let setup = setup(0, Policy::Refuse);
    for token in ["", "[]", r#"{"mid":"1","key":"k"}"#, r#"{"key":"k"} trailing"#] {
        assert!(matches!(setup.connect("h1", token).await, Err(Refused::Auth(AuthError::Token(_)))), "{token}");
    }
    assert_eq!(setup.at("k").await, None);
}

#[tokio::test]
async fn a_key_that_moved_is_closed_on_the_server_it_left() {
    let setup = setup(0, Policy::Refuse);
    for server in ["h1", "h1", "h2"] {
        setup.connect(server, r#"{"mid":7,"key":"phone"}"#).await.unwrap();
    }
    assert_eq!(setup.next_kick(0).await, ("h1".to_owned(), vec!["phone".to_owned()]));
    assert_eq!(setup.log.bounds(0), (0, 1));
    assert_eq!(setup.at("phone").await.as_deref(), Some("h2"));
}

#[tokio::test(start_paused = true)]
async fn the_server_that_a_key_moves_from_is_told_so_at_once_and_to_close_it_later() {
    let setup = setup(0, Policy::Refuse);
    setup.connect("h1", r#"{"mid":7,"key":"phone"}"#).await.unwrap();
    setup.connect("h2", r#"{"mid":7,"key":"phone","moving":true}"#).await.unwrap();
    let mut said = Vec::new();
    let began = tokio::time::Instant::now();
    for offset in 0..2 {
        assert_eq!(setup.next_kick(offset).await, ("h1".to_owned(), vec!["phone".to_owned()]));
        let record = setup.log.read(&[offset], 1).await.remove(0);
        said.push((PushMsg::decode(record.value).unwrap().msg, began.elapsed() >= MOVING));
    }
    assert_eq!(said, [("moving".into(), false), ("moved".into(), true)]);
}

#[tokio::test]
async fn a_key_that_came_back_is_younger_than_the_kick_of_where_it_was() {
    let setup = setup(0, Policy::Refuse);
    let mut sessions = Vec::new();
    for server in ["h1", "h2", "h1"] {
        sessions.push(setup.connect(server, r#"{"mid":7,"key":"phone"}"#).await.unwrap().connected_ms);
    }
    let mut kicked = HashMap::new();
    for offset in 0..2 {
        let record = setup.log.read(&[offset], 1).await.remove(0);
        let kick = PushMsg::decode(record.value).unwrap();
        kicked.insert(kick.server, kick.created_ms);
    }
    assert!(sessions[0] <= kicked["h1"], "the connection it is for, all within a millisecond: {sessions:?} {kicked:?}");
    assert!(sessions[2] > kicked["h1"], "the one that came back: {sessions:?} {kicked:?}");
}

#[tokio::test]
async fn a_kick_names_the_connection_it_is_for_whatever_the_clocks_of_those_who_made_it_say() {
    let setup = setup(0, Policy::Refuse);
    // Made by a logic whose clock is an hour ahead.
    let ahead = now_ms() + 3_600_000;
    let session = Session { mid: Mid(7), key: "phone".into(), server: "h1".into(), incarnation: 1 };
    setup.sessions.heartbeat(&Held { session, since_ms: ahead }).await.unwrap();
    for (offset, server, since_ms) in [(0, "h2", ahead + 1), (1, "h1", ahead + 2)] {
        let entered = setup.connect(server, r#"{"mid":7,"key":"phone"}"#).await.unwrap();
        assert_eq!(entered.connected_ms, since_ms);
        let record = setup.log.read(&[offset], 1).await.remove(0);
        assert_eq!(PushMsg::decode(record.value).unwrap().created_ms, since_ms - 1);
    }
}

#[tokio::test]
async fn one_connection_too_many_is_refused_and_the_others_stay() {
    let setup = setup(2, Policy::Refuse);
    for key in ["a", "b"] {
        setup.connect("h1", &format!(r#"{{"mid":7,"key":"{key}"}}"#)).await.unwrap();
    }
    let refused = setup.connect("h1", r#"{"mid":7,"key":"c"}"#).await.unwrap_err();
    assert_eq!(refused.to_string(), "this member has 2 connections already");
    assert_eq!((setup.at("a").await.as_deref(), setup.at("c").await), (Some("h1"), None));
    setup.connect("h1", r#"{"mid":7,"key":"b"}"#).await.unwrap();
    setup.connect("h1", r#"{"mid":8,"key":"c"}"#).await.unwrap();
    setup.connect("h1", r#"{"key":"anonymous"}"#).await.unwrap();
}

/// Sessions of those who bring a [`token`].
fn setup_of_tokens(limit: usize) -> Setup {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        jwt: JwtConfig,
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(signer::SECRET).unwrap();
    let line = ["logic", "--jwt-secret-file", file.path().to_str().unwrap()];
    let config = <Line as clap::Parser>::parse_from(line).jwt;
    let keys = config.keys(runtime::web::client(), AuthMetrics::default()).unwrap();
    let mut setup = setup(limit, Policy::Refuse);
    setup.sessions.auth = Authenticator::Jwt(Jwt::new(config, keys));
    setup
}

/// A good token of member 7, unless these claims say otherwise.
fn token(more: serde_json::Value) -> String {
    let claims = signer::claims(more);
    signer::Signer::Secret(signer::SECRET).token(&serde_json::json!({"alg": "HS256"}), &claims)
}

#[tokio::test]
async fn who_says_that_it_moves_moves_its_own_key_and_nobody_elses() {
    let setup = setup_of_tokens(0);
    let victim = serde_json::json!({"token": token(serde_json::json!({"sub": 8})), "key": "8:phone"}).to_string();
    setup.connect("h1", &victim).await.unwrap();
    let mine = token(serde_json::json!({}));
    for said in [
        serde_json::json!({"key": "8:phone"}),
        serde_json::json!({"key": "8:phone", "mid": 8}),
        serde_json::json!({"key": "8:phone", "MOVING": true, "caps": ["move"]}),
        serde_json::json!({"Key": "8:phone", "server": "h1"}),
    ] {
        let mut body = said;
        (body["token"], body["moving"]) = (mine.as_str().into(), true.into());
        let refused = setup.connect("h2", &body.to_string()).await.unwrap_err();
        assert!(matches!(refused, Refused::Auth(AuthError::Denied(_))), "{refused}: {body}");
    }
    assert_eq!(setup.at("8:phone").await.as_deref(), Some("h1"));
    let own = serde_json::json!({"token": mine, "key": "7:phone", "moving": true}).to_string();
    for server in ["h1", "h2"] {
        setup.connect(server, &own).await.unwrap();
    }
    assert_eq!((setup.at("7:phone").await.as_deref(), setup.log.bounds(0)), (Some("h2"), (0, 0)), "nobody is kicked");
}

#[tokio::test]
async fn a_token_says_how_many_connections_its_member_may_have() {
    let setup = setup_of_tokens(2);
    let (one, three) = (serde_json::json!({"connections": 1}), serde_json::json!({"connections": 3, "sub": 8}));
    setup.connect("h1", &token(one.clone())).await.unwrap();
    let refused = setup.connect("h1", &token(one)).await.unwrap_err();
    assert!(matches!(refused, Refused::TooMany { limit: 1 }), "{refused}");
    for _ in 0..3 {
        setup.connect("h1", &token(three.clone())).await.unwrap();
    }
    assert!(matches!(setup.connect("h1", &token(three)).await, Err(Refused::TooMany { limit: 3 })));
    assert!(matches!(setup.connect("h1", "{}").await, Err(Refused::Auth(AuthError::Denied(_)))));
}

#[tokio::test]
async fn the_oldest_connection_is_evicted_and_told() {
    let setup = setup(2, Policy::EvictOldest);
    for key in ["a", "b", "c"] {
        setup.connect("h1", &format!(r#"{{"mid":7,"key":"{key}"}}"#)).await.unwrap();
    }
    assert_eq!(setup.next_kick(0).await, ("h1".to_owned(), vec!["a".to_owned()]));
    assert_eq!((setup.at("a").await, setup.at("c").await.as_deref()), (None, Some("h1")));
    assert_eq!(setup.log.bounds(0), (0, 1));
}

#[tokio::test]
async fn a_probe_is_an_empty_push_to_one_key() {
    let setup = setup(0, Policy::Refuse);
    setup.sessions.probe("h1".to_owned(), "probe".to_owned()).await.unwrap();
    let record = setup.log.read(&[0], 1).await.remove(0);
    let push = PushMsg::decode(record.value).unwrap();
    assert_eq!((push.r#type(), push.server.as_str(), &push.keys[..]), (Type::Push, "h1", &["probe".to_owned()][..]));
    assert!(push.msg.is_empty());
}

#[tokio::test]
async fn keys_that_are_nowhere_are_left_out() {
    let setup = setup(0, Policy::Refuse);
    setup.connect("h1", r#"{"key":"here"}"#).await.unwrap();
    let found = setup.sessions.locate(vec!["nowhere".to_owned(), "here".to_owned()]).await.unwrap();
    assert_eq!(found.collect::<Vec<_>>(), [("here".to_owned(), "h1".to_owned())]);
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_token_and_no_key_is_ever_logged() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::info!("listening");
    let setup = setup(1, Policy::EvictOldest);
    for (server, key) in [("h1", "hush-1"), ("h2", "hush-1"), ("h2", "hush-2")] {
        setup.connect(server, &format!(r#"{{"mid":7,"key":"{key}","secret":"hush"}}"#)).await.unwrap();
    }
    let refused = setup.connect("h1", r#"{"mid":"hush"}"#).await.unwrap_err();
    tracing::info!(%refused, "as grpc says it");
    setup.next_kick(1).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("listening"));
    assert!(!text.contains("hush"), "{text}");
}
