//! The readers of auth bodies on any bytes: nothing panics; what comet and logic each read of a body agrees; a token read,
//! written as JSON and read again is the same; and where the body is JSON that every reader takes alike, it says what a
//! plain reader says.

use serde_json::{Map, Value, json};

use crate::Mid;
use crate::token::{Token, announced, carried, is_moving};

/// Panics where it does not hold.
pub fn holds(bytes: &[u8]) {
    let (caps, moving, held) = (announced(bytes), is_moving(bytes), carried(bytes));
    assert!(caps.any() || (!caps.rooms && !caps.moves), "rooms and move imply the envelope");
    let parsed = Token::parse(bytes);
    if let Ok(token) = &parsed {
        let Token { mid: Mid(mid), key, room_id, platform, accepts } = token;
        let again =
            json!({"mid": mid, "key": key, "room_id": room_id, "platform": platform, "accepts": accepts}).to_string();
        assert_eq!(Token::parse(again.as_bytes()).expect("it is what was read"), *token);
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    if let Some(one) = alone(&fields, bytes, "token") {
        assert_eq!(held.as_deref(), one.as_str());
    }
    if let Some(one) = alone(&fields, bytes, "moving") {
        assert_eq!(moving, one.as_bool().unwrap_or_default());
    }
    if let (Ok(token), Some(mid)) = (&parsed, alone(&fields, bytes, "mid")) {
        assert_eq!(token.mid, Mid(mid.as_i64().unwrap_or_default()));
    }
    if let (Ok(token), Some(key)) = (&parsed, alone(&fields, bytes, "key")) {
        assert_eq!(token.key, key.as_str().unwrap_or_default());
    }
    if let (Ok(token), Some(room)) = (&parsed, alone(&fields, bytes, "room_id")) {
        assert_eq!(token.room_id, room.as_str().unwrap_or_default());
    }
}

/// The field of this name, where no other could be meant by it: neither a repeated name nor one spelt otherwise.
fn alone<'a>(fields: &'a Map<String, Value>, bytes: &[u8], name: &str) -> Option<&'a Value> {
    let quoted = format!("\"{name}\"");
    let text = std::str::from_utf8(bytes).ok()?;
    let is_plain = !text.contains('\\') && text.is_ascii();
    let is_once = text.to_ascii_lowercase().matches(&quoted).count() == 1;
    if is_plain && is_once { fields.get(name) } else { None }
}
