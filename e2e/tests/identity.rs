//! Clients with signed tokens and backends with push tokens on the real thing: what they may do, what they may not, and
//! that no secret they brought is in any log, not even at the most talkative level.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use e2e::certs::Authority;
use e2e::client::{Client, Dial};
use e2e::planted::{self, Search};
use e2e::program::{Options, Stack, flags};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const SOON: Duration = Duration::from_secs(30);
/// Planted: no log may hold them.
static SECRET: LazyLock<String> = LazyLock::new(|| planted::secret("jwt-secret"));
static PUSHER: LazyLock<String> = LazyLock::new(|| planted::secret("push-token"));
static KEYS_ONLY: LazyLock<String> = LazyLock::new(|| planted::secret("push-token"));
static SLOW: LazyLock<String> = LazyLock::new(|| planted::secret("push-token"));
static STRANGER: LazyLock<String> = LazyLock::new(|| planted::secret("push-token"));
static BODY: LazyLock<String> = LazyLock::new(|| planted::secret("message-body"));
static COOKIE: LazyLock<String> = LazyLock::new(|| planted::secret("client-token"));

fn seconds(from_now: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + from_now
}

/// A token with these claims, signed with this secret.
fn signed(secret: &str, claims: &Value) -> String {
    let message = format!("{}.{}", BASE64.encode(r#"{"alg":"HS256"}"#), BASE64.encode(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{message}.{}", BASE64.encode(hmac::sign(&key, message.as_bytes())))
}

fn token(sub: i64, lasts: i64) -> String {
    signed(&SECRET, &json!({"sub": sub, "exp": seconds(lasts), "rooms": [format!("own://{sub}"), "hall://1"]}))
}

fn push_tokens(file: &Path) {
    let entry = |name: &str, token: &str, routes: &str, more: &str| {
        let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\nroutes = [\"{routes}\"]\n{more}\n")
    };
    let lines = [
        entry("all", &PUSHER, "*", ""),
        entry("keys", &KEYS_ONLY, "push/keys", ""),
        entry("slow", &SLOW, "push/keys", "rate = 0.001"),
    ];
    std::fs::write(file, lines.concat()).unwrap();
}

/// A push; its status, its headers, and goim's code.
async fn push(http: SocketAddr, token: Option<&str>, target: &str) -> (StatusCode, HeaderMap, i64) {
    let socket = tokio::net::TcpStream::connect(http).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::post(format!("/goim/push/{target}")).header("host", "im");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = sender.send_request(request.body(Full::new(Bytes::from(BODY.as_str()))).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    connection.abort();
    (head.status, head.headers, body["code"].as_i64().unwrap())
}

async fn connected(stack: &Stack, ws: bool) -> Client {
    let comet = stack.comet(0);
    let target = if ws { format!("ws://{}/sub", comet.websocket()) } else { format!("tcp://{}", comet.tcp()) };
    Client::connect(&target.parse().unwrap(), &Dial::default()).await.unwrap()
}

/// A client that was let in with this body.
async fn entered(stack: &Stack, ws: bool, body: &str) -> Client {
    let mut client = connected(stack, ws).await;
    client.auth(body).await.unwrap();
    client
}

/// Notes what makes a token worth having: its claims, and their signature.
fn note(token: &str) {
    token.split('.').skip(1).filter(|part| !part.is_empty()).for_each(|part| planted::note("client-token", part));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_anybody_else_and_no_log_holds_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, tokens) = (folder.path().join("secret"), folder.path().join("tokens.toml"));
    std::fs::write(&secret, format!("{}\n", *SECRET)).unwrap();
    push_tokens(&tokens);
    let issued = Authority::new(folder.path()).unwrap().issue("ours", &["imcluster.internal"]).unwrap();
    for (file, name) in [(issued.cert, "tls.crt"), (issued.key, "tls.key"), (folder.path().join("ca.pem"), "ca.crt")] {
        std::fs::copy(file, folder.path().join(name)).unwrap();
    }
    let trace = [vec!["--log".to_owned(), "trace".to_owned()], flags::internal_tls(folder.path())].concat();
    let options = Options {
        secure: true,
        identity: flags::tokens(&secret, &tokens),
        logic: trace.clone(),
        job: trace.clone(),
        comet: trace,
        ..Options::default()
    };
    let stack = Stack::start(options).await.unwrap();

    // Seven comes in, over both transports, bare and with what goim's clients say besides.
    let seven = token(7, 600);
    let body = json!({
        "token": seven, "key": "7:phone", "room_id": "own://7", "accepts": [1000], "caps": ["rooms"], "more": *COOKIE,
    });
    let mut phone = entered(&stack, true, &body.to_string()).await;
    let mut bare = entered(&stack, false, &seven).await;
    bare.change_room("hall://1").await.unwrap();
    let rooms = phone.join(&["hall://1", "own://8"]).await.unwrap().rooms;
    assert_eq!((rooms["hall://1"].as_str(), rooms["own://8"].as_str()), ("ok", "not_allowed"));

    // Nobody else is seven, whatever they bring.
    let eight = token(8, 600);
    let forged = signed("another-secret-0123456789abcdef-0123", &json!({"sub": 7, "exp": seconds(600)}));
    let unsigned = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), seven.split('.').nth(1).unwrap());
    for attack in [
        json!({"token": eight, "mid": 7}).to_string(),
        json!({"token": eight, "key": "7:phone"}).to_string(),
        json!({"token": eight, "room_id": "own://7"}).to_string(),
        json!({"mid": 7, "key": "7:phone", "room_id": "own://7", "accepts": [1000]}).to_string(),
        json!({"token": forged}).to_string(),
        json!({"token": token(7, -600)}).to_string(),
        json!({"token": eight, "key": "7:phone", "caps": ["move"], "moving": true}).to_string(),
        json!({"token": eight, "token ": seven, "key": "7:phone"}).to_string(),
        forged.clone(),
        unsigned.clone(),
        String::new(),
    ] {
        let mut attacker = connected(&stack, true).await;
        assert!(attacker.auth(&attack).await.is_err(), "{attack}");
    }
    let mut guest = entered(&stack, true, &json!({"token": eight, "accepts": [1000]}).to_string()).await;
    guest.send(12, b"own://7").await.unwrap();
    assert_eq!(guest.closed_within(SOON).await.unwrap(), Some(1008));

    // Backends push what their tokens are for.
    let http = stack.http();
    let to_key = "keys?operation=1000&keys=7:phone";
    let to_room = "room?operation=1000&type=hall&room=1";
    assert_eq!(push(http, Some(&PUSHER), to_key).await.2, 0);
    let (op, body) = phone.push_within(SOON).await.unwrap();
    assert_eq!((op, body), (1000, Bytes::from(BODY.as_str())), "the attackers took nothing over");
    assert_eq!(push(http, Some(&PUSHER), to_room).await.2, 0);
    for client in [&mut phone, &mut bare] {
        assert_eq!(client.push_within(SOON).await.unwrap().1, BODY.as_str());
    }
    for (token, target, status, code) in [
        (None, to_key, 401, -401),
        (Some(STRANGER.as_str()), to_key, 401, -401),
        (Some(KEYS_ONLY.as_str()), to_room, 403, -403),
        (Some(KEYS_ONLY.as_str()), to_key, 200, 0),
        (Some(SLOW.as_str()), to_key, 200, 0),
        (Some(SLOW.as_str()), to_key, 429, -429),
    ] {
        let (answered, headers, said) = push(http, token, target).await;
        assert_eq!((answered.as_u16(), said), (status, code), "{target}");
        assert_eq!(headers.contains_key("retry-after"), status == 429);
    }

    // A token ends, and the connection with it: its time and the leeway, which is half a minute.
    let brief = token(9, -15);
    let mut brief_one = entered(&stack, true, &brief).await;
    assert_eq!(brief_one.closed_within(2 * SOON).await.unwrap(), Some(4401));

    for token in [&seven, &eight, &forged, &unsigned, &brief] {
        note(token);
    }
    let search = Search::noted().unwrap();
    for program in [&stack.logic, &stack.job, &stack.comets[0].program] {
        let log = program.process().log();
        assert!(program.process().output().contains("TRACE"), "{} says too little", log.display());
        assert_eq!(search.file(log).unwrap(), []);
    }
    assert!(stack.comet(0).program.process().output().contains("the token has expired"), "why is nobody told");
}
