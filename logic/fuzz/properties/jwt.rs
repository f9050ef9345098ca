//! Who an auth body says it is, with `--auth jwt`, for any body: nothing panics, no error quotes a token, and who is let in
//! is what a token signed by one of our keys says, no more.
//!
//! The input's first line chooses: a key's name has header (second line) and claims (third) signed by it, with what
//! is left as the fields beside the token, or none for a bare one; anything else makes the whole input the auth body.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use clap::Parser;
use futures::FutureExt;
use logic::auth::jwt::{Jwt, JwtConfig};
use logic::auth::{AuthError, AuthMetrics, Authenticator, Denied, Identity, Presented};
use proto::log::now_ms;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};

const SECRET: &[u8] = b"a secret that nobody but the fuzzer may know";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    jwt: JwtConfig,
}

/// Our keys, and who knows members by them.
struct Issuer {
    p256: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    authenticator: Authenticator,
}

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let chance = SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &chance).unwrap();
    let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &chance).unwrap();
    let ed = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&chance).unwrap().as_ref()).unwrap();
    let (x, y) = p256.public_key().as_ref()[1..].split_at(32);
    let set = json!({"keys": [
        {"kid": "hs", "kty": "oct", "k": BASE64.encode(SECRET)},
        {"kid": "es", "kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y)},
        {"kid": "ed", "kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(ed.public_key().as_ref())},
    ]});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), set.to_string()).unwrap();
    let config = Line::parse_from(["logic", "--jwt-keys-file", file.path().to_str().unwrap()]).jwt;
    let keys = config.keys(runtime::web::client(), AuthMetrics::default()).unwrap();
    Issuer { p256, ed, authenticator: Authenticator::Jwt(Jwt::new(config, keys)) }
});

/// Panics where it does not hold.
pub fn holds(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let key = parts.next().unwrap_or_default();
    let (Some(header), Some(claims)) = (parts.next(), parts.next()) else {
        return unsigned(bytes);
    };
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let Some((algorithms, signature)) = sign(key, header, message.as_bytes()) else {
        return unsigned(bytes);
    };
    let token = format!("{message}.{}", BASE64.encode(signature));
    let beside = parts.next().unwrap_or_default();
    let body = match beside.strip_prefix(b"{") {
        Some(fields) => [format!("{{\"token\":\"{token}\",").as_bytes(), fields].concat(),
        None => token.clone().into_bytes(),
    };
    match identify(&body) {
        Ok(identity) => {
            let header: Map<String, Value> = serde_json::from_slice(header).expect("a header that is JSON");
            let alg = header.get("alg").and_then(Value::as_str).expect("a header that names its algorithm");
            assert!(algorithms.contains(&alg), "{alg} with the key {}", key.escape_ascii());
            let kid = header.get("kid").filter(|kid| !kid.is_null());
            assert!(kid.is_none_or(|kid| kid.as_str().map(str::as_bytes) == Some(key)), "{kid:?}");
            assert!(!header.contains_key("crit") || header["crit"].is_null());
            allowed(&identity, claims);
        }
        Err(error) => tells_nothing(&error),
    }
}

/// Nobody made a signature for it.
fn unsigned(body: &[u8]) {
    match identify(body) {
        Ok(identity) => panic!("{identity:?} was let in without a signature"),
        Err(error) => tells_nothing(&error),
    }
}

fn identify(body: &[u8]) -> Result<Identity, AuthError> {
    let presented = Presented { body, ..Presented::default() };
    ISSUER.authenticator.identify(presented).now_or_never().expect("keys of a file are waited for by nobody")
}

/// What this key signs, and a signature.
fn sign(key: &[u8], header: &[u8], message: &[u8]) -> Option<(&'static [&'static str], Vec<u8>)> {
    Some(match key {
        b"hs" => {
            let names = |name: &str| header.windows(name.len()).any(|part| part == name.as_bytes());
            let how = match () {
                () if names("HS384") => hmac::HMAC_SHA384,
                () if names("HS512") => hmac::HMAC_SHA512,
                () => hmac::HMAC_SHA256,
            };
            let signature = hmac::sign(&hmac::Key::new(how, SECRET), message);
            (&["HS256", "HS384", "HS512"], signature.as_ref().to_vec())
        }
        b"es" => {
            let signature = ISSUER.p256.sign(&SystemRandom::new(), message).expect("it signs anything");
            (&["ES256"], signature.as_ref().to_vec())
        }
        b"ed" => (&["EdDSA"], ISSUER.ed.sign(message).as_ref().to_vec()),
        _ => return None,
    })
}

/// Who was let in is who the claims say, as far as they say it.
fn allowed(identity: &Identity, claims: &[u8]) {
    let claims: Map<String, Value> = serde_json::from_slice(claims).expect("claims that are JSON");
    let claim = |name: &str| claims.get(name).filter(|value| !value.is_null());
    let mid = match claim("sub") {
        Some(Value::String(text)) => text.clone(),
        other => other.and_then(Value::as_i64).expect("a member").to_string(),
    };
    assert_eq!(identity.mid.to_string(), mid);
    match claim("key") {
        Some(key) => assert_eq!(Some(identity.key.as_str()), key.as_str()),
        None => assert!(identity.key.as_str().starts_with(&format!("{mid}:")), "{identity:?}"),
    }
    let rooms: Option<Vec<&str>> =
        claim("rooms").map(|rooms| rooms.as_array().unwrap().iter().map(|room| room.as_str().unwrap()).collect());
    assert_eq!(identity.rooms.as_ref().map(|rooms| rooms.iter().map(String::as_str).collect()), rooms);
    let room = identity.room.as_str();
    assert!(room.is_empty() || rooms.is_none_or(|rooms| rooms.contains(&room)), "{identity:?}");
    assert_eq!(identity.connections.map(|most| most as u64), claim("connections").map(|most| most.as_u64().unwrap()));
    let ends = claim("exp").and_then(Value::as_f64).expect("an end");
    assert!(ends * 1000.0 > now_ms() as f64 - 32_000.0, "{ends} is over");
    assert!(claim("aud").is_none(), "it is for others");
    assert!(identity.expires_ms > 0);
}

/// An error is logged, so it says nothing of what was presented.
fn tells_nothing(error: &AuthError) {
    match error {
        AuthError::Token(_) => {
            let text = error.to_string();
            let place = text.strip_prefix("auth body: not the JSON of a token (line ").expect("our own words");
            assert!(
                place.len() < 30 && place.replace(", column ", "").trim_end_matches(')').parse::<u64>().is_ok(),
                "{text}"
            );
        }
        AuthError::Denied(Denied::Claim(name, _)) => {
            assert!(["sub", "key", "rooms", "connections", "exp", "nbf"].contains(&name.as_str()), "{name}");
        }
        AuthError::Denied(Denied::Webhook | Denied::Issuer) | AuthError::Away(_) => panic!("{error}"),
        // The others hold nothing to tell.
        AuthError::Denied(_) => {}
    }
}
