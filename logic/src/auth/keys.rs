//! The keys that tokens are signed with, read from text: a secret, PEM public keys, or a JSON Web Key Set (RFC 7517).
//! Each key is for the algorithms of its own kind and no other.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;

/// The shortest secret, in bytes: as long as what SHA-256 makes of it (RFC 7518 §3.2).
const SECRET: usize = 32;
/// The most keys of one text: a token without a `kid` is tried with each.
const MOST: usize = 64;

/// One key.
#[derive(Clone, Debug)]
pub struct Key {
    /// How tokens name it.
    pub kid: Option<String>,
    /// What it is for; never empty.
    pub algorithms: Vec<Algorithm>,
    /// The key itself. Debug shows nothing of it.
    pub key: DecodingKey,
}

/// Where a text comes from, and so what it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A secret and nothing else.
    Secret,
    /// A file of public keys in PEM, or a JWKS that may hold secrets too.
    File,
    /// A JWKS that others can read: a secret in it is none.
    Published,
}

/// Reads keys.
///
/// # Errors
/// What is wrong, without a word of what stands there.
pub fn read(text: &[u8], form: Form) -> Result<Vec<Key>, String> {
    let keys = match form {
        Form::Secret => vec![secret(text)?],
        Form::File if text.trim_ascii_start().starts_with(b"-----") => pem(text)?,
        Form::File | Form::Published => set(text, form)?,
    };
    match keys.len() {
        0 => Err("expected at least one key that signs tokens (RSA, P-256, P-384, Ed25519)".to_owned()),
        count if count > MOST => Err(format!("expected at most {MOST} keys, not {count}")),
        _ => Ok(keys),
    }
}

fn secret(text: &[u8]) -> Result<Key, String> {
    let bytes = text.strip_suffix(b"\n").unwrap_or(text);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let looks_public = bytes.trim_ascii_start().starts_with(b"-----") || bytes.trim_ascii_start().starts_with(b"{");
    if looks_public {
        return Err("expected a secret, not PEM or JSON: keys that are no secret go into --jwt-keys-file".to_owned());
    }
    if bytes.len() < SECRET {
        return Err(format!("expected a secret of at least {SECRET} bytes"));
    }
    Ok(Key { kid: None, algorithms: family(AlgorithmFamily::Hmac), key: DecodingKey::from_secret(bytes) })
}

fn pem(text: &[u8]) -> Result<Vec<Key>, String> {
    const END: &str = "-----END ";
    let text = std::str::from_utf8(text).map_err(|_| "expected PEM in ASCII".to_owned())?;
    let mut keys = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find(END).and_then(|at| Some(at + END.len() + rest[at + END.len()..].find("-----")? + 5));
        let (block, after) = rest.split_at(end.ok_or("expected PEM blocks that end")?);
        keys.push(block_of_pem(block.trim())?);
        rest = after.trim_start();
    }
    Ok(keys)
}

fn block_of_pem(block: &str) -> Result<Key, String> {
    let is = |name: &str| block.starts_with(&format!("-----BEGIN {name}-----"));
    if !is("PUBLIC KEY") && !is("RSA PUBLIC KEY") {
        return Err("expected blocks PUBLIC KEY (openssl pkey -in private.pem -pubout)".to_owned());
    }
    let bytes = block.as_bytes();
    let made = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
    let key = made.iter().find_map(|make| make(bytes).ok());
    let key = key.ok_or("expected public keys for RSA, P-256, P-384 or Ed25519")?;
    let algorithms = match key.family() {
        // An uncompressed point: one byte and two coordinates.
        AlgorithmFamily::Ec => match key.try_get_as_bytes().map(<[u8]>::len) {
            Ok(65) => vec![Algorithm::ES256],
            Ok(97) => vec![Algorithm::ES384],
            _ => return Err("expected elliptic curve keys on P-256 or P-384".to_owned()),
        },
        other => family(other),
    };
    Ok(Key { kid: None, algorithms, key })
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// Keys of kinds and uses that are not ours are left out, as RFC 7517 §5 says.
fn set(text: &[u8], form: Form) -> Result<Vec<Key>, String> {
    // What a parser says of its input may quote it.
    let set: Set = serde_json::from_slice(text)
        .map_err(|_| "expected a JSON Web Key Set, {\"keys\": […]}, or in a file PEM public keys".to_owned())?;
    let keys = set.keys.into_iter().filter_map(|value| serde_json::from_value::<Jwk>(value).ok());
    Ok(keys.filter_map(|jwk| of_set(&jwk, form)).collect())
}

fn of_set(jwk: &Jwk, form: Form) -> Option<Key> {
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|use_| *use_ == PublicKeyUse::Signature);
    let verifies = common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    if !signs || !verifies {
        return None;
    }
    let algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => family(AlgorithmFamily::Rsa),
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => vec![Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => vec![Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
        AlgorithmParameters::OctetKey(_) if form == Form::File => family(AlgorithmFamily::Hmac),
        _ => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    if key.family() == AlgorithmFamily::Hmac && key.try_get_as_bytes().ok()?.len() < SECRET {
        return None;
    }
    let algorithms = match common.key_algorithm {
        Some(one) => vec![Algorithm::try_from(one).ok().filter(|one| algorithms.contains(one))?],
        None => algorithms,
    };
    Some(Key { kid: common.key_id.clone(), algorithms, key })
}

fn family(family: AlgorithmFamily) -> Vec<Algorithm> {
    family.algorithms().to_vec()
}
