use clap::Parser;
use serde_json::json;

use super::super::keys;
use super::super::signer::{SECRET, Signer, claims, seconds};
use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    jwt: JwtConfig,
}

/// A verifier with these settings and the keys of this text.
fn jwt(flags: &str, text: &[u8], form: Form) -> Jwt {
    let config = Line::parse_from(std::iter::once("logic").chain(flags.split_whitespace())).jwt;
    Jwt::new(config, KeyRing::fixed(keys::read(text, form).unwrap()))
}

fn secret(flags: &str) -> Jwt {
    jwt(flags, SECRET, Form::Secret)
}

fn set(signers: &[(&str, &Signer)]) -> Vec<u8> {
    let keys: Vec<Value> = signers.iter().map(|(kid, signer)| signer.jwk(kid)).collect();
    json!({"keys": keys}).to_string().into_bytes()
}

async fn denied(jwt: &Jwt, token: &str) -> Denied {
    match jwt.verify(token).await {
        Err(AuthError::Denied(denied)) => denied,
        other => panic!("{other:?}: {token}"),
    }
}

fn hs256(claims: &Value) -> String {
    Signer::Secret(SECRET).token(&json!({"alg": "HS256"}), claims)
}

#[tokio::test]
async fn every_algorithm_is_taken_from_a_file_of_its_kind() {
    let all: [(Signer, &[&str]); 4] = [
        (Signer::rsa(), &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        (Signer::p256(), &["ES256"]),
        (Signer::p384(), &["ES384"]),
        (Signer::ed(), &["EdDSA"]),
    ];
    let every_pem: String = all.iter().map(|(signer, _)| signer.pem()).collect();
    for (signer, algorithms) in &all {
        for algorithm in *algorithms {
            let token = signer.token(&json!({"alg": algorithm, "kid": "k", "typ": "JWT"}), &claims(json!({})));
            for jwt in [
                jwt("", signer.pem().as_bytes(), Form::File),
                jwt("", every_pem.as_bytes(), Form::File),
                jwt("", &set(&[("other", &Signer::ed()), ("k", signer)]), Form::File),
                jwt("", &set(&[("k", signer)]), Form::Published),
            ] {
                assert_eq!(jwt.verify(&token).await.unwrap().mid, Mid(7), "{algorithm}");
            }
        }
    }
    let keys = set(&[("k", &Signer::Secret(SECRET))]);
    for algorithm in ["HS256", "HS384", "HS512"] {
        let token = Signer::Secret(SECRET).token(&json!({"alg": algorithm}), &claims(json!({})));
        for jwt in [secret(""), jwt("", &keys, Form::File)] {
            assert_eq!(jwt.verify(&token).await.unwrap().mid, Mid(7), "{algorithm}");
        }
    }
    let published = keys::read(&keys, Form::Published).unwrap_err();
    assert!(published.contains("at least one key"), "a secret that is published is none: {published}");
}

#[tokio::test]
async fn a_key_is_for_the_algorithms_of_its_kind_alone() {
    let rsa = Signer::rsa();
    let from_pem = jwt("", rsa.pem().as_bytes(), Form::File);
    let from_set = jwt("", &set(&[("k", &rsa)]), Form::Published);
    // What is public, taken for a secret: the whole file, with and without its line feed, and the key inside.
    let pem: &'static [u8] = Box::leak(rsa.pem().into_bytes().into());
    let Signer::Rsa(pair) = &rsa else { unreachable!() };
    let der: &'static [u8] = Box::leak(ring::signature::KeyPair::public_key(&**pair).as_ref().into());
    let jwks: &'static [u8] = Box::leak(set(&[("k", &rsa)]).into());
    for public in [pem, pem.trim_ascii_end(), der, jwks, b""] {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let token = Signer::Secret(public).token(&json!({"alg": algorithm, "kid": "k"}), &claims(json!({})));
            assert_eq!(denied(&from_pem, &token).await, Denied::Algorithm);
            assert_eq!(denied(&from_set, &token).await, Denied::Algorithm);
        }
    }
    for algorithm in ["none", "None", "NONE", "nOnE", "", "RS1", "HS256 ", "ES512", "ES256", "ES384", "EdDSA"] {
        let token = rsa.token(&json!({"alg": algorithm}), &claims(json!({})));
        assert_eq!(denied(&from_pem, &token).await, Denied::Algorithm, "{algorithm}");
        let (message, _) = token.rsplit_once('.').unwrap();
        assert_eq!(denied(&from_pem, &format!("{message}.")).await, Denied::Algorithm, "unsigned, {algorithm}");
    }
    assert_eq!(denied(&from_pem, &rsa.token(&json!({"typ": "JWT"}), &claims(json!({})))).await, Denied::Algorithm);
    let (p256, p384) = (Signer::p256(), Signer::p384());
    let jwt_of_p256 = jwt("", p256.pem().as_bytes(), Form::File);
    assert_eq!(
        denied(&jwt_of_p256, &p384.token(&json!({"alg": "ES384"}), &claims(json!({})))).await,
        Denied::Algorithm
    );
}

#[tokio::test]
async fn an_algorithm_that_a_key_set_names_is_the_only_one_of_its_key() {
    let rsa = Signer::rsa();
    let mut key = rsa.jwk("k");
    key["alg"] = "RS256".into();
    let jwt = jwt("", json!({"keys": [key]}).to_string().as_bytes(), Form::Published);
    jwt.verify(&rsa.token(&json!({"alg": "RS256"}), &claims(json!({})))).await.unwrap();
    for algorithm in ["RS512", "PS256"] {
        let token = rsa.token(&json!({"alg": algorithm}), &claims(json!({})));
        assert_eq!(denied(&jwt, &token).await, Denied::Algorithm);
    }
}

#[tokio::test]
async fn keys_that_sign_nothing_are_left_out() {
    let good = Signer::ed().jwk("good");
    let with = |name: &str, value: Value| {
        let mut jwk = Signer::p256().jwk("x");
        jwk[name] = value;
        jwk
    };
    let others = [
        with("use", "enc".into()),
        with("key_ops", json!(["deriveKey"])),
        with("alg", "RS256".into()),
        with("alg", "ECDH-ES".into()),
        with("crv", "P-521".into()),
        with("kty", "XYZ".into()),
        json!({"kty": "oct", "k": "c2hvcnQ"}),
        json!("no key"),
    ];
    for other in others {
        let text = json!({"keys": [other, good]}).to_string();
        let keys = keys::read(text.as_bytes(), Form::File).unwrap();
        assert_eq!(keys.iter().map(|key| key.kid.as_deref()).collect::<Vec<_>>(), [Some("good")], "{text}");
    }
}

#[test]
fn a_text_that_holds_no_keys_is_refused_without_a_word_of_it() {
    let hush = "hush-hush-hush-hush-hush-hush-hush-hush";
    let private = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let cut = Signer::p256().pem().replace("-----END", "");
    for text in [hush, "", "{}", "[]", r#"{"keys":[]}"#, "{\"keys\":[\"hush\"]}", "{\"keys\":\"hush\"}", &private, &cut]
    {
        let error = keys::read(text.as_bytes(), Form::File).unwrap_err();
        assert!(error.starts_with("expected ") && !error.contains("hush"), "{error}");
        assert!(keys::read(text.as_bytes(), Form::Published).is_err());
    }
}

#[tokio::test]
async fn a_token_that_was_touched_is_refused() {
    let jwt = secret("");
    let good = hs256(&claims(json!({})));
    jwt.verify(&good).await.unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    let other = hs256(&claims(json!({"sub": 8})));
    let payload_of_other = other.split('.').nth(1).unwrap();
    assert_eq!(denied(&jwt, &format!("{}.{payload_of_other}.{}", parts[0], parts[2])).await, Denied::Signature);
    let by_another =
        Signer::Secret(b"another secret, which is not ours at all").token(&json!({"alg": "HS256"}), &claims(json!({})));
    assert_eq!(denied(&jwt, &by_another).await, Denied::Signature);
    let header_of_another = Signer::Secret(SECRET).token(&json!({"alg": "HS512"}), &claims(json!({})));
    let header = header_of_another.split('.').next().unwrap();
    assert_eq!(denied(&jwt, &format!("{header}.{}.{}", parts[1], parts[2])).await, Denied::Signature);
    assert_eq!(denied(&jwt, &format!("{}.{}.", parts[0], parts[1])).await, Denied::Signature);
    for broken in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        parts[0].into(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}.{}", parts[2]),
        format!("{good}="),
        format!(" {good}"),
        good.replace('.', ":"),
        format!("{}.{}.!", parts[0], parts[1]),
        "\u{0}.\u{0}.\u{0}".into(),
        "[1].[2].[3]".into(),
    ] {
        assert!(matches!(denied(&jwt, &broken).await, Denied::Malformed | Denied::Signature), "{broken}");
    }
}

#[tokio::test]
async fn no_header_but_alg_and_kid_has_a_say() {
    let (ours, theirs) = (Signer::p256(), Signer::p256());
    let jwt = jwt("", &set(&[("k", &ours)]), Form::Published);
    let url = "https://attacker.example/keys";
    for more in [
        json!({"jwk": theirs.jwk("k")}),
        json!({"jku": url, "kid": "k"}),
        json!({"x5u": url, "kid": "k"}),
        json!({"x5c": ["MIIB"], "kid": "k"}),
    ] {
        let mut header = more;
        header["alg"] = "ES256".into();
        assert_eq!(denied(&jwt, &theirs.token(&header, &claims(json!({})))).await, Denied::Signature, "{header}");
    }
    let critical = ours.token(&json!({"alg": "ES256", "crit": ["b64"], "b64": false}), &claims(json!({})));
    assert_eq!(denied(&jwt, &critical).await, Denied::Algorithm);
}

#[tokio::test]
async fn a_kid_names_the_key_and_no_other_is_tried() {
    let (first, second) = (Signer::p256(), Signer::p256());
    let jwt = jwt("", &set(&[("1", &first), ("2", &second)]), Form::File);
    let token = |signer: &Signer, header: Value| signer.token(&header, &claims(json!({})));
    jwt.verify(&token(&first, json!({"alg": "ES256", "kid": "1"}))).await.unwrap();
    jwt.verify(&token(&second, json!({"alg": "ES256"}))).await.unwrap();
    assert_eq!(denied(&jwt, &token(&first, json!({"alg": "ES256", "kid": "2"}))).await, Denied::Signature);
    for kid in ["3", "", "../1", "1' OR '1'='1", "/dev/null", "1\u{0}"] {
        assert_eq!(denied(&jwt, &token(&first, json!({"alg": "ES256", "kid": kid}))).await, Denied::Kid, "{kid:?}");
    }
}

#[tokio::test]
async fn time_audience_and_issuer_are_looked_at() {
    let jwt = secret("--jwt-audience im,chat --jwt-issuer https://id.example --jwt-leeway 30s");
    let ours = |more: Value| {
        let mut all = claims(json!({"aud": "im", "iss": "https://id.example"}));
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        hs256(&all)
    };
    for good in [
        json!({}),
        json!({"aud": ["other", "chat"]}),
        json!({"exp": seconds(-10)}),
        json!({"nbf": seconds(10)}),
        json!({"exp": seconds(600) as f64 + 0.5}),
    ] {
        jwt.verify(&ours(good.clone())).await.unwrap_or_else(|error| panic!("{error}: {good}"));
    }
    for (bad, expected) in [
        (json!({"exp": seconds(-90)}), "expired"),
        (json!({"exp": 0}), "expired"),
        (json!({"exp": null}), "claim"),
        (json!({"exp": "2999-01-01"}), "claim"),
        (json!({"exp": seconds(600).to_string()}), "claim"),
        (json!({"exp": -1}), "claim"),
        (json!({"nbf": seconds(90)}), "not_yet"),
        (json!({"nbf": "later"}), "claim"),
        (json!({"aud": "other"}), "audience"),
        (json!({"aud": []}), "audience"),
        (json!({"aud": ["other"]}), "audience"),
        (json!({"aud": null}), "audience"),
        (json!({"aud": 1}), "audience"),
        (json!({"aud": "IM"}), "audience"),
        (json!({"iss": "https://id.example.attacker.example"}), "issuer"),
        (json!({"iss": null}), "issuer"),
        (json!({"iss": 1}), "issuer"),
    ] {
        assert_eq!(denied(&jwt, &ours(bad.clone())).await.label(), expected, "{bad}");
    }
    let without = secret("");
    for aud in [json!("im"), json!(["im"]), json!([]), json!(7), json!({}), json!([7]), json!(true)] {
        assert_eq!(denied(&without, &hs256(&claims(json!({"aud": aud})))).await, Denied::Audience, "{aud}");
    }
    let no_exp = hs256(&json!({"sub": 7}));
    assert!(matches!(denied(&without, &no_exp).await, Denied::Claim(name, _) if name == "exp"));
}

#[tokio::test]
async fn claims_say_who_it_is_and_what_it_may() {
    let jwt = secret("--jwt-leeway 10s");
    let exp = seconds(600);
    let all = json!({"sub": "7", "key": "phone", "rooms": ["a://1", "a://2"], "connections": 3, "exp": exp});
    let expected = Grant {
        mid: Mid(7),
        key: Some("phone".into()),
        rooms: Some(vec!["a://1".into(), "a://2".into()]),
        connections: Some(3),
        expires_ms: (exp as u64 + 10) * 1000,
    };
    assert_eq!(jwt.verify(&hs256(&all)).await.unwrap(), expected);
    let least = jwt.verify(&hs256(&json!({"sub": -1, "exp": exp, "rooms": null}))).await.unwrap();
    assert_eq!((least.mid, least.key, least.rooms, least.connections), (Mid(-1), None, None, None));
    assert_eq!(jwt.verify(&hs256(&claims(json!({"rooms": []})))).await.unwrap().rooms, Some(vec![]));

    let renamed = secret("--jwt-mid-claim uid --jwt-key-claim device --jwt-rooms-claim r --jwt-connections-claim c");
    let mut ours = claims(json!({"uid": 9, "device": "tv", "r": ["x"], "c": 1, "key": "no", "rooms": ["no"]}));
    ours["sub"] = "not a number".into();
    let grant = renamed.verify(&hs256(&ours)).await.unwrap();
    assert_eq!((grant.mid, grant.key.as_deref(), grant.connections), (Mid(9), Some("tv"), Some(1)));
    assert_eq!(grant.rooms, Some(vec!["x".to_owned()]));
}

#[tokio::test]
async fn a_claim_that_is_something_else_is_refused_and_never_read_as_nothing() {
    let jwt = secret("");
    for (name, values) in [
        (
            "sub",
            vec![json!(null), json!(""), json!("07"), json!("+7"), json!(" 7"), json!("7.0"), json!(7.5), json!(1e30)],
        ),
        ("sub", vec![json!("9223372036854775808"), json!(u64::MAX), json!(true), json!("\u{667}"), json!("0x7")]),
        ("key", vec![json!(""), json!(7), json!(["phone"]), json!(false)]),
        ("rooms", vec![json!("a://1"), json!([1]), json!([["a"]]), json!({"a": 1}), json!(false), json!([null])]),
        ("connections", vec![json!(0), json!(-1), json!("3"), json!(1.5), json!([])]),
    ] {
        for value in values {
            let token = hs256(&claims(json!({name: value})));
            assert!(matches!(denied(&jwt, &token).await, Denied::Claim(found, _) if found == name), "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn a_member_that_is_a_list_or_an_object_is_no_token() {
    for sub in [json!([7]), json!({"sub": 7})] {
        assert_eq!(denied(&secret(""), &hs256(&claims(json!({"sub": sub})))).await, Denied::Malformed);
    }
}

#[tokio::test]
async fn an_error_says_nothing_that_the_token_says() {
    let jwt = secret("");
    for claims in [
        claims(json!({"rooms": "hush"})),
        claims(json!({"sub": "hush"})),
        claims(json!({"aud": "hush"})),
        json!({"hush": 1}),
    ] {
        let denied = denied(&jwt, &hs256(&claims)).await;
        assert!(!format!("{denied} {denied:?}").contains("hush"), "{denied:?}");
    }
    assert!(!format!("{jwt:?}").contains("a secret"), "{jwt:?}");
    assert!(!format!("{jwt:?}").contains(&format!("{SECRET:?}")[1..40]), "{jwt:?}");
}
