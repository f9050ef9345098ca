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
//! | `imc_epoch`, on Cluster sixteen of them | string | random number and the server's run id | – |
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

/// Has the key name a server instead of another. 1 = done.
pub const TAKE_OVER: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) \
    return 1";
/// Forgets an incarnation if it has not renewed since this score.
pub const RENEWAL_DELETE_IF: &str = "local score = redis.call('ZSCORE', KEYS[1], ARGV[1]) \
    if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end \
    return redis.call('ZREM', KEYS[1], ARGV[1])";
/// The random number kept there, or the one given, which is kept from now on, when there is none or it was kept by
/// another server than this one: another process, so whatever was not written to disk, or not copied, is lost. Which
/// server a script runs on only that server knows for sure. Who may not ask for INFO notices no heir.
pub const EPOCH: &str = "local info = redis.pcall('INFO', 'server') \
    local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or '-' \
    local kept = redis.call('GET', KEYS[1]) \
    if kept and string.sub(kept, -#run) == run then return kept end \
    local new = ARGV[1] .. ' ' .. run \
    redis.call('SET', KEYS[1], new) \
    return new";
/// On how many parts of a cluster's slots an epoch is kept: as many primaries are watched.
const EPOCHS: usize = 16;

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

    /// One on a single server; on a cluster one in each sixteenth of the slots, so that each primary has some.
    pub fn epochs(&self, clustered: bool) -> Vec<String> {
        let first = format!("{}imc_epoch", self.prefix);
        if !clustered {
            return vec![first];
        }
        let mut found = [const { None }; EPOCHS];
        for name in (0..).map(|number| format!("{first}/{number}")) {
            let part = usize::from(fred::util::redis_keyslot(name.as_bytes())) * EPOCHS / (1 << 14);
            found[part].get_or_insert(name);
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        found.into_iter().flatten().collect()
    }
}

/// How a session stands in its incarnation's set.
pub fn member(session: &Session) -> String {
    format!("{} {}", session.mid, session.key)
}

/// Reads a member of an incarnation's set; what is not one is nobody's session.
pub fn entry(member: &str) -> Option<(Mid, Key)> {
    let (mid, key) = member.split_once(' ')?;
    Some((Mid(mid.parse().ok()?), key.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sixteenth_of_a_clusters_slots_has_an_epoch() {
        let keys = Keys::new("blue:");
        assert_eq!(keys.epochs(false), ["blue:imc_epoch"]);
        let slots = keys.epochs(true).into_iter().map(|key| fred::util::redis_keyslot(key.as_bytes()) / 1024);
        assert_eq!(slots.collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
    }
}
