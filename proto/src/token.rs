//! What a client presents when it authenticates: goim's JSON, read by Go's rules (`encoding/json`).
//! comet reads only what it was announced ([`announced`]); logic reads who it is ([`Token::parse`], [`carried`]).

use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::Mid;
use crate::envelope::Caps;

/// Who a client says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// The member; absent = anonymous.
    pub mid: Mid,
    /// The connection's key; absent or empty = logic makes one up.
    pub key: String,
    /// The first room, or empty.
    pub room_id: String,
    /// Read and ignored, as in goim.
    pub platform: String,
    /// The operations it wants of pushes to keys, members and all.
    pub accepts: Vec<i32>,
}

/// The body is not such a token; says where.
#[derive(Debug, thiserror::Error)]
#[error("auth body: {0}")]
pub struct TokenError(#[from] serde_json::Error);

impl Token {
    /// Reads an auth body as goim's logic does: names in any case, unknown ones ignored, the last of several counts,
    /// `null` says nothing; also as the whole body.
    ///
    /// # Errors
    /// When the body is not one JSON object or `null`, or a field has another type: a number with a fraction, an
    /// operation beyond 32 bits, a number as text.
    pub fn parse(body: &[u8]) -> Result<Self, TokenError> {
        Ok(serde_json::from_str(&go_text(body))?)
    }
}

/// The capabilities announced in an auth body; none when it is not JSON or does not say.
pub fn announced(body: &[u8]) -> Caps {
    // A bare JWT, or anything else that is no object, announces nothing.
    let names: Vec<String> = field(body, "caps").unwrap_or_default();
    Caps::from_names(names.iter().map(String::as_str))
}

/// Whether a client says that it comes from another server, where it still is: its old connection is not to be ended
/// for that.
pub fn is_moving(body: &[u8]) -> bool {
    field(body, "moving").unwrap_or_default()
}

/// The signed or opaque token that an auth body carries in its field `token`, whatever the other fields hold; none when
/// the body is no object, has no such field, or has no text there.
pub fn carried(body: &[u8]) -> Option<String> {
    field(body, "token")
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(body: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Token;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with mid, key, room_id and accepts")
            }

            fn visit_unit<E>(self) -> Result<Token, E> {
                Ok(Token::default())
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Token, M::Error> {
                let mut token = Token::default();
                while let Some(name) = map.next_key::<String>()? {
                    match folded(&name).as_str() {
                        "mid" => token.mid = map.next_value::<Option<i64>>()?.map_or(token.mid, Mid),
                        "key" => token.key = map.next_value::<Option<_>>()?.unwrap_or(token.key),
                        "room_id" => token.room_id = map.next_value::<Option<_>>()?.unwrap_or(token.room_id),
                        "platform" => token.platform = map.next_value::<Option<_>>()?.unwrap_or(token.platform),
                        "accepts" => {
                            // Go empties a list for null, and takes a null inside it for 0.
                            let ops = map.next_value::<Option<Vec<Option<i32>>>>()?.unwrap_or_default();
                            token.accepts = ops.into_iter().map(Option::unwrap_or_default).collect();
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(token)
            }
        }
        body.deserialize_any(Fields)
    }
}

/// One field of an object, by Go's rules for names and repeats; whatever the other fields hold.
fn field<T: DeserializeOwned>(body: &[u8], name: &str) -> Option<T> {
    let text = go_text(body);
    let mut json = serde_json::Deserializer::from_str(&text);
    let found = Field(name, PhantomData).deserialize(&mut json).ok()?;
    json.end().ok()?;
    found
}

struct Field<'a, T>(&'a str, PhantomData<T>);

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Field<'_, T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, body: D) -> Result<Option<T>, D::Error> {
        body.deserialize_map(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Field<'_, T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an object with {}", self.0)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Option<T>, M::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if folded(&name) == self.0 {
                found = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A field name as Go compares it: ASCII letters in any case, with the two letters beyond ASCII that fold to one.
fn folded(name: &str) -> String {
    name.chars()
        .map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            letter => letter.to_ascii_lowercase(),
        })
        .collect()
}

/// The body as text that any JSON reader takes where Go's takes the body: each byte that is not UTF-8, and each half
/// of a surrogate pair written as an escape, becomes U+FFFD.
fn go_text(body: &[u8]) -> String {
    let mut text = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    if text.contains("\\u") { whole_pairs(&text) } else { text }
}

fn whole_pairs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                out.push('\u{fffd}');
                rest = &rest[6..];
                continue;
            }
            // Another escape: the character after the backslash belongs to it.
            _ => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

/// The UTF-16 unit that an escape at the front names.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests;
