//! What a client presents when it authenticates: goim's JSON, read by Go's rules (`encoding/json`).
//! comet reads only what it was announced ([`announced`]); logic reads who it is ([`Token::parse`]).

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
    /// Reads a token.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(body: &[u8]) -> Result<Self, TokenError> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Wire {
            mid: i64,
            key: String,
            room_id: String,
            platform: String,
            accepts: Vec<i32>,
        }
        let Wire { mid, key, room_id, platform, accepts } =
            serde_json::from_slice::<Option<Wire>>(body)?.unwrap_or_default();
        Ok(Self { mid: Mid(mid), key, room_id, platform, accepts })
    }
}

/// The capabilities announced in an auth body; none when it is not JSON or does not say.
pub fn announced(_body: &[u8]) -> Caps {
    Caps::default()
}
