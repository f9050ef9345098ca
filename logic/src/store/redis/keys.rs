//! What lies in Redis by its name, and the scripts that remove it only if it is what it is taken for.
//!
//! | key | type | content | lives |
//! |---|---|---|---|
//! | `mid_<mid>` | hash | key → server | `redis.expire` (goim) |
//! | `key_<key>` | string | server | `redis.expire` (goim) |
//! | `ol_<server>` | hash | shard → JSON of counts, see [`super::shards`] | `redis.expire` (goim) |
//! | `imc_srv_<server>/<incarnation>` | set | `mid key` | twice `redis.expire` |
//! | `imc_mid_<mid>` | sorted set | key by connect time, Unix ms | `redis.expire` |
//! | `imc_comet_<server>` | string | [`CometInfo`](proto::logic::CometInfo), protobuf | 30 s |
//! | `imc_comets` | sorted set | `server/incarnation` by last renewal, Unix ms | – |

use std::sync::Arc;

use proto::{Key, Mid, ServerId};

use crate::store::Session;

/// Deletes the key if it holds this server. 1 = deleted, 0 = there was none, -1 = it holds another.
pub const DELETE_IF: &str = "local v = redis.call('GET', KEYS[1]) \
    if not v then return 0 end \
    if v ~= ARGV[1] then return -1 end \
    return redis.call('DEL', KEYS[1])";
/// Deletes the field if it holds this server.
pub const FIELD_DELETE_IF: &str = "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end \
    return redis.call('HDEL', KEYS[1], ARGV[1])";
/// Deletes the counts if the newest `updated` in them is this one.
pub const COUNTS_DELETE_IF: &str = "local newest = 0 \
    for _, shard in ipairs(redis.call('HVALS', KEYS[1])) do \
        local updated = tonumber(string.match(shard, '\"updated\":(%d+)}$') or 0) \
        if updated > newest then newest = updated end \
    end \
    if newest ~= tonumber(ARGV[1]) then return 0 end \
    return redis.call('DEL', KEYS[1])";

/// The names of a store's keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    /// Every name begins with this prefix.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    pub fn key(&self, key: &Key) -> String {
        format!("{}key_{key}", self.prefix)
    }

    pub fn mid(&self, mid: Mid) -> String {
        format!("{}mid_{mid}", self.prefix)
    }

    pub fn online(&self, server: &ServerId) -> String {
        format!("{}ol_{server}", self.prefix)
    }

    pub fn devices(&self, mid: Mid) -> String {
        format!("{}imc_mid_{mid}", self.prefix)
    }

    pub fn sessions(&self, server: &ServerId, incarnation: u64) -> String {
        format!("{}imc_srv_{server}/{incarnation}", self.prefix)
    }

    pub fn info(&self, server: &ServerId) -> String {
        format!("{}imc_comet_{server}", self.prefix)
    }

    pub fn comets(&self) -> String {
        format!("{}imc_comets", self.prefix)
    }
}

/// How a session stands in its incarnation's set.
pub fn member(session: &Session) -> String {
    format!("{} {}", session.mid, session.key)
}
