//! What the cluster decides of each service's settings: addresses, files of secrets, ports. Named as the services' flags
//! are, in camelCase, as `[imcluster]` has them.

use runtime::duration;
use runtime::pod::{self, Component};
use toml::{Table, Value};

use super::{Auth, ClientTls, Comet, Invalid, Kafka, KeysOf, Redis, Whole, overlay};
use crate::crd::Drain;

/// The name, after the cluster's, of the Service that has every ready logic for an address.
pub(crate) const LOGIC_PEERS: &str = "logic-headless";
/// The folder of the certificate for clients.
pub(crate) const CLIENT_TLS: &str = "tls";
/// The folder of the certificate for each other.
pub(crate) const INTERNAL_TLS: &str = "internal-tls";
/// The folder of the push tokens.
pub(crate) const PUSH_TOKENS: &str = "push";

/// The folder of the keys that clients' tokens are signed with.
pub(crate) const JWT: &str = "jwt";
/// The folder of the authorities of who is asked about clients.
pub(crate) const AUTH_CA: &str = "auth-ca";
/// The key of a Secret that is one.
pub(crate) const JWT_SECRET: &str = "secret";
/// The key of a Secret that holds public keys.
pub(crate) const JWT_KEYS: &str = "keys";

/// The file with a certificate or a secret.
fn file(what: &str, key: &str) -> Value {
    Value::String(format!("{}/{key}", pod::secret_dir(what)))
}

fn put(table: &mut Table, name: &str, value: impl Into<Value>) {
    table.insert(name.to_owned(), value.into());
}

fn put_some(table: &mut Table, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        put(table, name, value);
    }
}

fn every_address(port: u16) -> String {
    format!(":{port}")
}

fn seconds(seconds: i32) -> String {
    format!("{seconds}s")
}

/// comet's, apart from TLS and drain.
pub(super) fn comet(whole: &Whole<'_>, tcp: u16, websocket: u16, drain: &Drain) -> Table {
    let mut table = Table::new();
    put(&mut table, "tcpBind", every_address(tcp));
    put(&mut table, "websocketBind", every_address(websocket));
    put(&mut table, "grpcBind", every_address(pod::COMET_GRPC));
    put(&mut table, "logic", logics(whole));
    put(&mut table, "drainDelay", seconds(drain.delay_seconds));
    put(&mut table, "drainMin", seconds(drain.min_seconds));
    put(&mut table, "drainMax", seconds(drain.max_seconds));
    put(&mut table, "closeRate", i64::from(drain.max_rate_per_second));
    put(&mut table, "flush", seconds(drain.flush_seconds));
    internal_tls(&mut table, whole);
    table
}

/// comet's listeners with TLS.
pub(super) fn listener_tls(table: &mut Table, tcp: u16, websocket: u16) {
    put(table, "tlsOpen", true);
    put(table, "tcpTlsBind", every_address(tcp));
    put(table, "wsTlsBind", every_address(websocket));
    put(table, "certFile", Value::Array(vec![file(CLIENT_TLS, "tls.crt")]));
    put(table, "keyFile", Value::Array(vec![file(CLIENT_TLS, "tls.key")]));
}

/// With what our pods know each other: the name is the cluster's, so that those of two never mix.
fn internal_tls(table: &mut Table, whole: &Whole<'_>) {
    if whole.spec.internal_tls.is_some() {
        put(table, "internalTlsCert", file(INTERNAL_TLS, "tls.crt"));
        put(table, "internalTlsKey", file(INTERNAL_TLS, "tls.key"));
        put(table, "internalTlsCa", file(INTERNAL_TLS, "ca.crt"));
        put(table, "internalTlsName", format!("{}.imcluster.internal", whole.name));
    }
}

/// Where the logics are, for comet and job.
fn logics(whole: &Whole<'_>) -> String {
    format!("dns:{}-{}.{}.svc:{}", whole.name, LOGIC_PEERS, whole.namespace, pod::LOGIC_GRPC)
}

/// Where the comets are, for logic and job.
fn comets(whole: &Whole<'_>) -> String {
    format!("endpointslices:{}/{}", whole.namespace, Component::Comet.of(&whole.name))
}

/// logic's, apart from what clients are told.
pub(super) fn logic(whole: &Whole<'_>) -> Table {
    let mut table = Table::new();
    put(&mut table, "httpAddr", every_address(pod::LOGIC_HTTP));
    put(&mut table, "rpcAddr", every_address(pod::LOGIC_GRPC));
    auth(&mut table, &whole.auth);
    put(&mut table, "pushTokens", file(PUSH_TOKENS, pod::TOKENS_FILE));
    put(&mut table, "comets", comets(whole));
    put(&mut table, "topology", format!("{}/{}", pod::TOPOLOGY_DIR, pod::TOPOLOGY_FILE));
    kafka(&mut table, &whole.kafka);
    let topic = &whole.kafka.topic;
    put(&mut table, "kafkaCreateTopic", topic.create);
    put(&mut table, "kafkaPartitions", i64::from(topic.partitions));
    put(&mut table, "kafkaReplication", i64::from(topic.replication));
    redis(&mut table, &whole.redis);
    internal_tls(&mut table, whole);
    table
}

/// What is not set is as logic has it.
fn auth(table: &mut Table, auth: &Auth) {
    let (of, jwt) = match auth {
        Auth::Trust => return put(table, "auth", "trust"),
        Auth::Webhook(webhook) => {
            put(table, "auth", "webhook");
            put(table, "authWebhookUrl", webhook.url.clone());
            put_some(table, "authCaFile", webhook.ca_secret_ref.as_ref().map(|_| file(AUTH_CA, "ca.crt")));
            put_some(table, "authWebhookTimeout", webhook.timeout_seconds.map(seconds));
            return put_some(table, "authWebhookCache", webhook.cache.map(i64::from));
        }
        Auth::Jwt(of, jwt) => (of, jwt),
    };
    put(table, "auth", "jwt");
    match of {
        KeysOf::Secret(_) => put(table, "jwtSecretFile", file(JWT, JWT_SECRET)),
        KeysOf::Keys(_) => put(table, "jwtKeysFile", file(JWT, JWT_KEYS)),
        KeysOf::Url(url) => put(table, "jwtJwksUrl", url.clone()),
    }
    put_some(table, "authCaFile", jwt.ca_secret_ref.as_ref().map(|_| file(AUTH_CA, "ca.crt")));
    put_some(table, "jwtJwksRefresh", jwt.jwks_refresh_seconds.map(seconds));
    put_some(table, "jwtLeeway", jwt.leeway_seconds.map(seconds));
    for (name, list) in [("jwtAudience", &jwt.audience), ("jwtIssuer", &jwt.issuer)] {
        put_some(table, name, (!list.is_empty()).then(|| texts(list)));
    }
    let claims = jwt.claims.clone().unwrap_or_default();
    put_some(table, "jwtMidClaim", claims.mid);
    put_some(table, "jwtKeyClaim", claims.key);
    put_some(table, "jwtRoomsClaim", claims.rooms);
    put_some(table, "jwtConnectionsClaim", claims.connections);
}

/// What clients are told about where to connect.
pub(super) fn nodes(table: &mut Table, whole: &Whole<'_>, comet: &Comet) {
    let asked = whole.spec.comet.advertise.clone().unwrap_or_default();
    let ingress = comet.ingress.as_ref();
    if let Some(host) = asked.host.or_else(|| ingress.map(|ingress| ingress.host.clone())) {
        put(table, "defaultDomain", host);
    }
    if let Some(domain) = &whole.spec.comet.exposure.host_domain {
        put(table, "hostDomain", domain.clone());
    }
    let tls = comet.tls.as_ref();
    let has_https = ingress.is_some_and(|ingress| ingress.tls_secret.is_some());
    let ws = if ingress.is_some() { 80 } else { i64::from(comet.websocket_port) };
    let wss = if has_https { 443 } else { tls.map_or(0, |tls| i64::from(tls.websocket_port)) };
    put(table, "tcpPort", asked.tcp_port.map_or(i64::from(comet.tcp_port), i64::from));
    put(table, "wsPort", asked.ws_port.map_or(ws, i64::from));
    put(table, "wssPort", asked.wss_port.map_or(wss, i64::from));
    put(table, "tcpsPort", tls.map_or(0, |tls| i64::from(tls.tcp_port)));
}

/// job's. A zone's group and zone come through its environment.
pub(super) fn job(whole: &Whole<'_>, is_per_zone: bool) -> Table {
    let mut table = Table::new();
    put(&mut table, "comets", comets(whole));
    put(&mut table, "logic", logics(whole));
    kafka(&mut table, &whole.kafka);
    if !is_per_zone {
        put(&mut table, "group", whole.group.clone());
    }
    internal_tls(&mut table, whole);
    table
}

fn kafka(table: &mut Table, kafka: &Kafka) {
    put(table, "kafkaBrokers", texts(&kafka.brokers));
    put(table, "kafkaTopic", kafka.topic.name.clone());
    client_tls(table, "kafka", kafka.tls.as_ref());
    if let Some(sasl) = &kafka.sasl {
        put(table, "kafkaSasl", sasl.mechanism.clone());
        login(table, "kafka", "kafka-sasl");
    }
}

fn redis(table: &mut Table, redis: &Redis) {
    put(table, "redisAddr", texts(&redis.addresses));
    if redis.is_cluster {
        put(table, "redisCluster", true);
    }
    if let Some(master) = &redis.sentinel_master {
        put(table, "redisSentinelMaster", master.clone());
    }
    if let Some(database) = redis.database {
        put(table, "redisDb", i64::from(database));
    }
    if !redis.prefix.is_empty() {
        put(table, "redisPrefix", redis.prefix.clone());
    }
    client_tls(table, "redis", redis.tls.as_ref());
    if redis.credentials.is_some() {
        login(table, "redis", "redis-login");
    }
    if redis.sentinel_credentials.is_some() {
        login(table, "redisSentinel", "redis-sentinel-login");
    }
}

fn client_tls(table: &mut Table, of: &str, tls: Option<&ClientTls>) {
    let Some(tls) = tls else {
        return;
    };
    put(table, &format!("{of}Tls"), true);
    if tls.ca.is_some() {
        put(table, &format!("{of}CaFile"), file(&format!("{of}-ca"), "ca.crt"));
    }
    if tls.certificate.is_some() {
        put(table, &format!("{of}CertFile"), file(&format!("{of}-certificate"), "tls.crt"));
        put(table, &format!("{of}KeyFile"), file(&format!("{of}-certificate"), "tls.key"));
    }
}

fn login(table: &mut Table, of: &str, what: &str) {
    put(table, &format!("{of}UsernameFile"), file(what, "username"));
    put(table, &format!("{of}PasswordFile"), file(what, "password"));
}

fn texts(texts: &[String]) -> Value {
    Value::Array(texts.iter().cloned().map(Value::String).collect())
}

/// What a duration of the file comes to in whole seconds; `default` where it is not set.
pub(super) fn seconds_of(field: &str, file: &Table, name: &str, default: i64) -> Result<i64, Invalid> {
    match setting(file.get("imcluster").and_then(Value::as_table), name) {
        None => Ok(default),
        Some(text) => duration::parse(text.as_str().unwrap_or_default())
            .map(|duration| duration.as_secs_f64().ceil() as i64)
            .map_err(|why| Invalid::spec(format!("{field}.imcluster.{name}"), why)),
    }
}

/// How many connections one comet takes; `None` = as many as come.
pub(super) fn max_connections(file: &Table, live: &Table) -> Option<i64> {
    let name = "maxConnections";
    let set = setting(Some(live), name).or_else(|| setting(file.get("imcluster").and_then(Value::as_table), name));
    set.and_then(Value::as_integer).filter(|most| *most > 0)
}

/// A setting, however its name is spelt.
fn setting<'a>(table: Option<&'a Table>, name: &str) -> Option<&'a Value> {
    let found = table?.iter().find(|(key, _)| overlay::plain(key) == overlay::plain(name));
    found.map(|(_, value)| value)
}
