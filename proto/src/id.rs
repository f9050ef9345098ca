//! Names that must not be swapped for one another.

use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(from = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Borrows the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $type {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// Names one connection: a device of a member.
    Key
);
name!(
    /// Names a room: `type://id` by convention, any text in fact.
    RoomId
);
name!(
    /// Names one comet: what sessions in the store point to.
    ServerId
);

impl RoomId {
    /// Joins a room's type and id as goim does: `type://id`.
    pub fn from_parts(kind: &str, id: &str) -> Self {
        Self(format!("{kind}://{id}").into())
    }
}

/// A member (user); 0 and below is anonymous and has no per-member mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mid(pub i64);

impl Mid {
    /// Whether there is nobody to push to by member.
    pub fn is_anonymous(self) -> bool {
        self.0 <= 0
    }
}

impl fmt::Display for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// CityHash32 (1.1), the hash goim shards keys and rooms by.
pub fn city32(bytes: &[u8]) -> u32 {
    cityhasher::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn city32_gives_the_values_goim_shards_by() {
        for (text, hash) in [
            ("", 3_696_677_242),
            ("a", 1_016_544_589),
            ("live", 342_420_021),
            ("test://1", 4_274_401_948),
            ("live://1000", 1_126_145_323),
            ("test://test_room", 4_181_585_595),
            ("live://1234567890123456789012", 625_398_965),
        ] {
            assert_eq!(city32(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn a_room_is_its_type_and_id() {
        assert_eq!(RoomId::from_parts("live", "1000").as_str(), "live://1000");
    }
}
