//! Files and sets of keys, any bytes for one: nothing panics, no error says more than what was expected, and each key that
//! is read is for the algorithms of its own kind, can be tried with any signature, and is a secret only where secrets may
//! be. The first byte chooses where the text comes from.

use std::sync::Once;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{AlgorithmFamily, Validation, decode};
use logic::auth::keys::{self, Form, Key};
use serde_json::Value;

/// Panics where it does not hold.
pub fn holds(bytes: &[u8]) {
    let Some((form, text)) = bytes.split_first() else {
        return;
    };
    let form = match form % 3 {
        0 => Form::Secret,
        1 => Form::File,
        _ => Form::Published,
    };
    match keys::read(text, form) {
        Ok(keys) => {
            assert!((1..=64).contains(&keys.len()));
            keys.iter().for_each(|key| is_sound(key, form));
        }
        Err(why) => assert!(why.starts_with("expected ") && why.len() < 120, "{why}"),
    }
}

fn is_sound(key: &Key, form: Form) {
    assert!(!key.algorithms.is_empty());
    let is_secret = key.key.family() == AlgorithmFamily::Hmac;
    assert!(!is_secret || (form != Form::Published && key.key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() >= 32)));
    assert!(is_secret || form != Form::Secret);
    static CHECKS: Once = Once::new();
    CHECKS.call_once(logic::auth::jwt::install);
    for algorithm in &key.algorithms {
        assert!(key.key.family().algorithms().contains(algorithm));
        let name = serde_json::to_value(algorithm).expect("an algorithm has a name");
        let header = BASE64.encode(serde_json::json!({"alg": name}).to_string());
        let token = format!("{header}.{}.{}", BASE64.encode("{}"), BASE64.encode([7; 64]));
        assert!(decode::<Value>(&token, &key.key, &Validation::new(*algorithm)).is_err(), "nobody signed that");
    }
}
