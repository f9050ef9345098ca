//! An issuer of tokens for tests: one key of each kind, and tokens signed with it, good ones and others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use proto::log::now_ms;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use serde_json::{Value, json};

/// 42 bytes.
pub const SECRET: &[u8] = b"a secret that nobody but the tests may know";

/// One key of an issuer.
pub enum Signer {
    Secret(&'static [u8]),
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair, KeyPair),
    P384(EcdsaKeyPair, KeyPair),
    Ed(Ed25519KeyPair, KeyPair),
}

/// Seconds since 1970, so many from now.
pub fn seconds(from_now: i64) -> i64 {
    now_ms() as i64 / 1000 + from_now
}

/// The claims of a good token of member 7, and these besides.
pub fn claims(more: Value) -> Value {
    let mut claims = json!({"sub": 7, "exp": seconds(600)});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

impl Signer {
    pub fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(include_bytes!("fixtures/rsa.pkcs8.der")).unwrap()))
    }

    pub fn p256() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let how = &sig::ECDSA_P256_SHA256_FIXED_SIGNING;
        Self::P256(EcdsaKeyPair::from_pkcs8(how, &pair.serialize_der(), &SystemRandom::new()).unwrap(), pair)
    }

    pub fn p384() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let how = &sig::ECDSA_P384_SHA384_FIXED_SIGNING;
        Self::P384(EcdsaKeyPair::from_pkcs8(how, &pair.serialize_der(), &SystemRandom::new()).unwrap(), pair)
    }

    pub fn ed() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pair.serialize_der()).unwrap(), pair)
    }

    /// The public half as PEM.
    pub fn pem(&self) -> String {
        match self {
            Self::P256(_, pair) | Self::P384(_, pair) | Self::Ed(_, pair) => pair.public_key_pem(),
            Self::Rsa(pair) => {
                let der = base64::engine::general_purpose::STANDARD.encode(pair.public_key());
                format!("-----BEGIN RSA PUBLIC KEY-----\n{der}\n-----END RSA PUBLIC KEY-----\n")
            }
            Self::Secret(_) => panic!("a secret has no public half"),
        }
    }

    /// The public half, or the secret, as an entry of a JWKS.
    pub fn jwk(&self, kid: &str) -> Value {
        let point = |pair: &KeyPair, curve: &str| {
            let (x, y) = pair.public_key_raw()[1..].split_at((pair.public_key_raw().len() - 1) / 2);
            json!({"kty": "EC", "crv": curve, "x": BASE64.encode(x), "y": BASE64.encode(y)})
        };
        let mut jwk = match self {
            Self::Secret(bytes) => json!({"kty": "oct", "k": BASE64.encode(bytes)}),
            Self::Rsa(pair) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": BASE64.encode(public.n), "e": BASE64.encode(public.e)})
            }
            Self::P256(_, pair) => point(pair, "P-256"),
            Self::P384(_, pair) => point(pair, "P-384"),
            Self::Ed(_, pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(pair.public_key_raw())}),
        };
        jwk["kid"] = kid.into();
        jwk
    }

    /// A token with this header and these claims, signed as the header's `alg` says if this key can, else as it can.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.sign(header["alg"].as_str().unwrap_or_default(), message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Secret(bytes) => {
                let how = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(how, bytes), message).as_ref().to_vec()
            }
            Self::Rsa(pair) => {
                let how: &dyn sig::RsaEncoding = match algorithm {
                    "RS384" => &sig::RSA_PKCS1_SHA384,
                    "RS512" => &sig::RSA_PKCS1_SHA512,
                    "PS256" => &sig::RSA_PSS_SHA256,
                    "PS384" => &sig::RSA_PSS_SHA384,
                    "PS512" => &sig::RSA_PSS_SHA512,
                    _ => &sig::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(how, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Self::P256(pair, _) | Self::P384(pair, _) => {
                pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
            }
            Self::Ed(pair, _) => pair.sign(message).as_ref().to_vec(),
        }
    }
}
