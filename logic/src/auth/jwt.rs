//! Signed tokens (RFC 7519): which key, whether it is good, and what its claims allow.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use proto::Mid;
use runtime::duration;
use serde_json::{Map, Value};
use url::Url;

use super::keyring::KeyRing;
use super::keys::{Form, Key};
use super::{AuthError, AuthMetrics, Away, Denied, Grant, signatures};
use runtime::web;

/// Which tokens are good and what their claims are called.
#[derive(Clone, Debug, clap::Args)]
pub struct JwtConfig {
    /// With --auth jwt: the file of the secret that tokens are signed with (HS256, HS384, HS512), at least 32 bytes. Read
    /// again when it changes; a line feed at its end does not count.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_JWT_SECRET_FILE", conflicts_with_all = ["jwt_keys_file", "jwt_jwks_url"])]
    pub jwt_secret_file: Option<PathBuf>,
    /// With --auth jwt: the file of the keys that tokens are signed with: PEM public keys (RSA, P-256, P-384, Ed25519), or
    /// a JSON Web Key Set. Read again when it changes.
    #[arg(long, value_name = "FILE", env = "IMCLUSTER_JWT_KEYS_FILE", conflicts_with = "jwt_jwks_url")]
    pub jwt_keys_file: Option<PathBuf>,
    /// With --auth jwt: where the issuer publishes its JSON Web Key Set.
    #[arg(long, value_name = "URL", env = "IMCLUSTER_JWT_JWKS_URL", value_parser = web::url)]
    pub jwt_jwks_url: Option<Url>,
    /// How often that is asked, at least 1s. A token with a kid that is not known has it asked at once, at most every 10 s.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_JWT_JWKS_REFRESH", value_parser = refresh, default_value = "10m")]
    pub jwt_jwks_refresh: Duration,
    /// Who tokens must be for: their aud names one of these. Without it a token that has an aud is refused.
    #[arg(long, value_name = "AUDIENCE,…", env = "IMCLUSTER_JWT_AUDIENCE", value_delimiter = ',')]
    pub jwt_audience: Vec<String>,
    /// Who tokens must be by: their iss is one of these. Without it anybody with the key.
    #[arg(long, value_name = "ISSUER,…", env = "IMCLUSTER_JWT_ISSUER", value_delimiter = ',')]
    pub jwt_issuer: Vec<String>,
    /// By how much clocks may differ when exp and nbf are looked at, at most 5m.
    #[arg(long, value_name = "DURATION", env = "IMCLUSTER_JWT_LEEWAY", value_parser = leeway, default_value = "30s")]
    pub jwt_leeway: Duration,
    /// The claim that is the member: a whole number, or its digits as text. Tokens must have it; 0 is nobody.
    #[arg(long, value_name = "CLAIM", env = "IMCLUSTER_JWT_MID_CLAIM", default_value = "sub")]
    pub jwt_mid_claim: String,
    /// The claim that is the connection's key. Without it a client may choose keys that begin with its mid and a colon.
    #[arg(long, value_name = "CLAIM", env = "IMCLUSTER_JWT_KEY_CLAIM", default_value = "key")]
    pub jwt_key_claim: String,
    /// The claim that lists the rooms that may be entered, such as ["live://1000"]. Without it any may.
    #[arg(long, value_name = "CLAIM", env = "IMCLUSTER_JWT_ROOMS_CLAIM", default_value = "rooms")]
    pub jwt_rooms_claim: String,
    /// The claim that says how many connections the member may have, in place of --mid-connections.
    #[arg(long, value_name = "CLAIM", env = "IMCLUSTER_JWT_CONNECTIONS_CLAIM", default_value = "connections")]
    pub jwt_connections_claim: String,
}

impl JwtConfig {
    /// The setting that names the keys, and the keys.
    ///
    /// # Errors
    /// One line: which setting is missing or wrong.
    pub fn keys(&self, client: web::Client, metrics: AuthMetrics) -> Result<KeyRing, String> {
        let file = |name, path: &PathBuf, form| {
            let invalid = |error| format!("{name} is `{}`: {error}", path.display());
            KeyRing::file(path.clone(), form, metrics.clone()).map_err(invalid)
        };
        match (&self.jwt_secret_file, &self.jwt_keys_file, &self.jwt_jwks_url) {
            (Some(path), _, _) => file("--jwt-secret-file", path, Form::Secret),
            (_, Some(path), _) => file("--jwt-keys-file", path, Form::File),
            (_, _, Some(url)) => Ok(KeyRing::url(url.clone(), self.jwt_jwks_refresh, client, metrics)),
            (None, None, None) => {
                Err("--auth jwt needs the keys: one of --jwt-secret-file, --jwt-keys-file, --jwt-jwks-url".to_owned())
            }
        }
    }

    /// Whether some keys are named.
    pub fn is_named(&self) -> bool {
        self.jwt_secret_file.is_some() || self.jwt_keys_file.is_some() || self.jwt_jwks_url.is_some()
    }
}

/// Tells members by their tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Jwt {
    config: Arc<JwtConfig>,
    ring: KeyRing,
}

impl Jwt {
    /// Tokens of these keys.
    pub fn new(config: JwtConfig, ring: KeyRing) -> Self {
        install();
        Self { config: Arc::new(config), ring }
    }

    /// Keeps the keys fresh, for as long as it is polled.
    pub async fn follow(self) {
        self.ring.follow().await;
    }

    /// What a token allows.
    ///
    /// # Errors
    /// When it is not good, or, while no keys are known, cannot be told.
    pub async fn verify(&self, token: &str) -> Result<Grant, AuthError> {
        let header = decode_header(token).map_err(|error| match error.kind() {
            // A header that is JSON, but not what it should be, names no algorithm of ours: `none`, or something newer.
            ErrorKind::Json(error) if error.is_data() => Denied::Algorithm,
            _ => Denied::Malformed,
        })?;
        if header.crit.is_some() {
            return Err(Denied::Algorithm.into()); // RFC 7515 §4.1.11: what must be understood is not
        }
        let mut keys = self.ring.keys();
        if !keys.iter().any(|key| is_meant(key, header.kid.as_deref())) {
            keys = self.ring.newer(&keys).await?;
        }
        if keys.is_empty() {
            return Err(Away("the keys that sign tokens are not known yet").into());
        }
        let meant: Vec<&Key> = keys.iter().filter(|key| is_meant(key, header.kid.as_deref())).collect();
        if meant.is_empty() {
            return Err(Denied::Kid.into());
        }
        let rules = self.rules(header.alg);
        let mut denied = Denied::Algorithm;
        for key in meant.iter().filter(|key| key.algorithms.contains(&header.alg)) {
            match decode::<Map<String, Value>>(token, &key.key, &rules) {
                Ok(good) => return Ok(self.grant(&good.claims)?),
                Err(error) => denied = told(&error),
            }
            if denied != Denied::Signature {
                break; // signed by this key, and yet not good
            }
        }
        Err(denied.into())
    }

    fn rules(&self, algorithm: Algorithm) -> Validation {
        let mut rules = Validation::new(algorithm);
        rules.leeway = self.config.jwt_leeway.as_secs();
        rules.validate_nbf = true;
        let mut required = vec!["exp"];
        if !self.config.jwt_audience.is_empty() {
            rules.set_audience(&self.config.jwt_audience);
            required.push("aud");
        }
        if !self.config.jwt_issuer.is_empty() {
            rules.set_issuer(&self.config.jwt_issuer);
            required.push("iss");
        }
        rules.set_required_spec_claims(&required);
        rules
    }

    fn grant(&self, claims: &Map<String, Value>) -> Result<Grant, Denied> {
        let config = &self.config;
        let wrong = |name: &str, expected| Denied::Claim(name.to_owned(), expected);
        let claim = |name: &str| claims.get(name).filter(|value| !value.is_null());

        // An aud that is neither text nor a list of it was taken for none.
        if config.jwt_audience.is_empty() && claim("aud").is_some() {
            return Err(Denied::Audience);
        }

        let name = &config.jwt_mid_claim;
        let mid =
            claim(name).and_then(mid).ok_or_else(|| wrong(name, "expected a member, a whole number or its digits"))?;

        let name = &config.jwt_key_claim;
        let key = match claim(name) {
            None => None,
            Some(Value::String(key)) if !key.is_empty() => Some(key.clone()),
            Some(_) => return Err(wrong(name, "expected a text")),
        };
        let name = &config.jwt_rooms_claim;
        let rooms = claim(name).map(|value| {
            let rooms = value.as_array()?.iter().map(|room| Some(room.as_str()?.to_owned()));
            rooms.collect::<Option<Vec<_>>>()
        });
        let rooms = rooms.map(|rooms| rooms.ok_or_else(|| wrong(name, "expected a list of room keys"))).transpose()?;

        let name = &config.jwt_connections_claim;
        let connections = claim(name).map(|value| value.as_u64().and_then(|most| usize::try_from(most).ok()));
        let connections = connections
            .map(|most| most.filter(|most| *most > 0).ok_or_else(|| wrong(name, "expected a whole number above 0")))
            .transpose()?;

        let exp = claim("exp").and_then(Value::as_f64).ok_or_else(|| wrong("exp", "expected seconds"))?;
        let expires_ms = ((exp + config.jwt_leeway.as_secs_f64()) * 1000.0) as u64;
        Ok(Grant { mid, key, rooms, connections, expires_ms })
    }
}

/// Has this process check signatures with ring. [`Jwt::new`] does it.
pub fn install() {
    // The second of a process finds the first one's, which is the same.
    let _same = signatures::PROVIDER.install_default();
}

/// A token names its key, or leaves it to us to try; a key without a name is tried for every token.
fn is_meant(key: &Key, kid: Option<&str>) -> bool {
    match (&key.kid, kid) {
        (Some(name), Some(kid)) => name == kid,
        _ => true,
    }
}

/// One number, one text: `7` and `"7"` are the same member, `"07"` and `"+7"` are nobody.
fn mid(value: &Value) -> Option<Mid> {
    let number = match value {
        Value::String(text) => text.parse::<i64>().ok().filter(|number| number.to_string() == *text)?,
        other => other.as_i64()?,
    };
    Some(Mid(number))
}

fn told(error: &jsonwebtoken::errors::Error) -> Denied {
    match error.kind() {
        ErrorKind::ExpiredSignature => Denied::Expired,
        ErrorKind::ImmatureSignature => Denied::NotYet,
        ErrorKind::InvalidAudience => Denied::Audience,
        ErrorKind::InvalidIssuer => Denied::Issuer,
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => match name.as_str() {
            "aud" => Denied::Audience,
            "iss" => Denied::Issuer,
            _ => Denied::Claim(name.clone(), "expected seconds since 1970"),
        },
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Denied::Algorithm,
        ErrorKind::InvalidSignature | ErrorKind::InvalidKeyFormat => Denied::Signature,
        _ => Denied::Malformed,
    }
}

fn refresh(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        short if short < Duration::from_secs(1) => {
            Err("expected at least 1s: the issuer is asked that often".to_owned())
        }
        refresh => Ok(refresh),
    }
}

fn leeway(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        long if long > Duration::from_secs(300) => Err("expected at most 5m: it keeps expired tokens good".to_owned()),
        leeway => Ok(leeway),
    }
}

#[cfg(test)]
mod tests;
