use proto::log::now_ms;
use serde_json::{Value, json};

use super::keyring::KeyRing;
use super::keys::{self, Form};
use super::signer::{SECRET, Signer, claims};
use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    jwt: jwt::JwtConfig,
}

fn authenticator() -> Authenticator {
    let config = <Line as clap::Parser>::parse_from(["logic"]).jwt;
    Authenticator::Jwt(Jwt::new(config, KeyRing::fixed(keys::read(SECRET, Form::Secret).unwrap())))
}

fn token(more: Value) -> String {
    Signer::Secret(SECRET).token(&json!({"alg": "HS256"}), &claims(more))
}

async fn identify(body: &str) -> Result<Identity, AuthError> {
    authenticator().identify(Presented { body: body.as_bytes(), ..Presented::default() }).await
}

async fn denied(body: &str) -> Denied {
    match identify(body).await {
        Err(AuthError::Denied(denied)) => denied,
        other => panic!("{other:?}: {body}"),
    }
}

#[tokio::test]
async fn an_auth_body_is_a_bare_token_or_json_that_carries_it() {
    let token = token(json!({"rooms": ["a://1"], "connections": 2}));
    for body in [token.clone(), format!("\n{token} "), json!({"token": token}).to_string()] {
        let identity = identify(&body).await.unwrap();
        assert_eq!((identity.mid, identity.room.as_str(), identity.connections), (Mid(7), "", Some(2)));
        assert!(identity.key.as_str().starts_with("7:") && identity.accepts.is_empty());
        assert!(identity.expires_ms > now_ms());
    }
    let all = json!({"Token": token, "mid": 7, "key": "7:tv", "room_id": "a://1", "accepts": [1], "caps": ["rooms"]});
    let identity = identify(&all.to_string()).await.unwrap();
    assert_eq!((identity.key.as_str(), identity.room.as_str(), identity.accepts), ("7:tv", "a://1", vec![1]));
    assert_eq!(identity.rooms, Some(vec!["a://1".to_owned()]));
}

#[tokio::test]
async fn a_body_without_a_token_is_nobody() {
    for body in [
        "",
        "null",
        "{}",
        "[]",
        "7",
        r#""x""#,
        r#"{"mid":7,"key":"7:a"}"#,
        r#"{"token":null}"#,
        r#"{"token":7}"#,
        r#"{"token":["a.b.c"]}"#,
        r#"{"token":""}"#,
        r#"{"tokens":"a.b.c"}"#,
        "\u{0}",
    ] {
        assert_eq!(denied(body).await, Denied::Malformed, "{body}");
    }
    let good = token(json!({}));
    for body in [format!(r#"{{"token":"{good}","mid":"7"}}"#), format!(r#"{{"token":"{good}"}} x"#), "{".to_owned()] {
        assert!(matches!(identify(&body).await, Err(AuthError::Token(_))), "{body}");
    }
}

#[tokio::test]
async fn nobody_takes_anothers_mid_key_or_room() {
    let carried = |more: &str, claims: Value| format!(r#"{{"token":"{}",{more}}}"#, token(claims));
    for (more, expected) in [
        (r#""mid":8"#, Denied::Mid),
        (r#""MID":8"#, Denied::Mid),
        (r#""mid":7,"mid":8"#, Denied::Mid),
        (r#""mid":8,"key":"7:a""#, Denied::Mid),
        (r#""key":"8:phone""#, Denied::Key),
        (r#""\u004Bey":"8:phone""#, Denied::Key),
        (r#""\u212Aey":"8:phone""#, Denied::Key),
        (r#""key":"7:a","KEY":"8:a""#, Denied::Key),
        (r#""room_id":"a://2""#, Denied::Room),
        (r#""Room_ID":"a://2""#, Denied::Room),
        (r#""room_id":"a://1","room_id":"a://2""#, Denied::Room),
    ] {
        assert_eq!(denied(&carried(more, json!({"rooms": ["a://1"]}))).await, expected, "{more}");
    }
    // Of several tokens in a body the last counts, as of every field; it has to be good, and says who it is.
    let (mine, theirs) = (token(json!({})), token(json!({"sub": 8})).replace('e', "f"));
    let forged = format!(r#"{{"token":"{mine}","token":"{theirs}"}}"#);
    assert!(matches!(denied(&forged).await, Denied::Malformed | Denied::Signature | Denied::Algorithm));
    let mine_last = identify(&format!(r#"{{"token":"{theirs}","TOKEN":"{mine}"}}"#)).await.unwrap();
    assert_eq!(mine_last.mid, Mid(7));
    // Claims beside the token are the client's words, not the issuer's.
    let beside = carried(r#""rooms":["a://2"],"connections":99,"sub":8,"exp":99999999999"#, json!({"rooms": []}));
    let identity = identify(&beside).await.unwrap();
    assert_eq!((identity.mid, identity.rooms, identity.connections), (Mid(7), Some(vec![]), None));
}

#[tokio::test]
async fn what_a_webhook_grants_binds_the_client_as_a_token_does() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url::Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    // It says who it is by what it is asked.
    let answer = async |body: axum::Json<Value>| match body.0["token"].as_str().unwrap() {
        "good" => (axum::http::StatusCode::OK, r#"{"mid":7,"rooms":["a://1"]}"#),
        goims if goims.contains("\"mid\":7") => (axum::http::StatusCode::OK, r#"{"mid":7}"#),
        _ => (axum::http::StatusCode::FORBIDDEN, "hush"),
    };
    let app = axum::Router::new().route("/", axum::routing::post(answer));
    tokio::spawn(axum::serve(listener, app).into_future());
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        webhook: webhook::WebhookConfig,
    }
    let config = <Line as clap::Parser>::parse_from(["logic"]).webhook;
    let authenticator =
        Authenticator::Webhook(Webhook::new(&config, url, runtime::web::client(), AuthMetrics::default()));
    let identify =
        async |body: &str| authenticator.identify(Presented { body: body.as_bytes(), ..Presented::default() }).await;
    let bare = identify("good").await.unwrap();
    assert!(bare.mid == Mid(7) && bare.key.as_str().starts_with("7:") && bare.expires_ms == 0);
    let more = identify(r#"{"token":"good","key":"7:tv","room_id":"a://1","accepts":[1]}"#).await.unwrap();
    assert_eq!((more.key.as_str(), more.room.as_str(), more.accepts), ("7:tv", "a://1", vec![1]));
    assert_eq!(identify(r#"{"mid":7,"key":"7:goim"}"#).await.unwrap().key.as_str(), "7:goim");
    for (body, expected) in [
        (r#"{"token":"good","mid":8}"#, Denied::Mid),
        (r#"{"token":"good","key":"8:tv"}"#, Denied::Key),
        (r#"{"token":"good","room_id":"a://2"}"#, Denied::Room),
        (r#"{"mid":7,"key":"other"}"#, Denied::Key),
        ("bad", Denied::Webhook),
        (r#"{"token":"bad","mid":7}"#, Denied::Webhook),
        ("", Denied::Webhook),
    ] {
        match identify(body).await {
            Err(AuthError::Denied(denied)) => assert_eq!(denied, expected, "{body}"),
            other => panic!("{other:?}: {body}"),
        }
    }
}

#[tokio::test]
async fn trust_believes_what_the_body_says_and_never_looks_for_a_token() {
    let body = br#"{"mid":7,"key":"phone","token":{"not":"text"}}"#;
    let identity = Authenticator::Trust.identify(Presented { body, ..Presented::default() }).await.unwrap();
    assert_eq!((identity.mid, identity.key.as_str(), identity.expires_ms), (Mid(7), "phone", 0));
    assert_eq!((identity.rooms, identity.connections), (None, None));
}
