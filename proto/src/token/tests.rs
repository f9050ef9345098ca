use proptest::prelude::*;

use super::*;

fn parsed(body: &str) -> Token {
    Token::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn refused(body: &[u8]) {
    let found = Token::parse(body);
    assert!(found.is_err(), "{}: {found:?}", String::from_utf8_lossy(body));
}

#[test]
fn goims_token_has_five_fields() {
    let body = r#"{"mid":123,"key":"k1","room_id":"live://1000","platform":"web","accepts":[1000,1001,1002]}"#;
    let expected = Token {
        mid: Mid(123),
        key: "k1".into(),
        room_id: "live://1000".into(),
        platform: "web".into(),
        accepts: vec![1000, 1001, 1002],
    };
    assert_eq!(parsed(body), expected);
    assert_eq!(parsed("{}"), Token::default());
}

#[test]
fn null_as_the_whole_body_is_an_anonymous_session() {
    for body in ["null", " \t\r\nnull\n"] {
        assert_eq!(parsed(body), Token::default());
        assert!(parsed(body).mid.is_anonymous());
    }
}

#[test]
fn a_negative_mid_is_anonymous_but_its_key_counts() {
    let token = parsed(r#"{"mid":-5,"key":"k"}"#);
    assert!(token.mid.is_anonymous());
    assert_eq!(token.key, "k");
}

#[test]
fn names_match_in_any_case() {
    let token = parsed(r#"{"MID":1,"Key":"k","Room_ID":"r","aCCepts":[7]}"#);
    let expected = Token { mid: Mid(1), key: "k".into(), room_id: "r".into(), accepts: vec![7], ..Token::default() };
    assert_eq!(token, expected);
    assert_eq!(parsed("{\"\u{212a}ey\":\"kelvin\",\"accept\u{17f}\":[1]}").key, "kelvin");
    assert_eq!(parsed(r#"{"\u006did":9}"#).mid, Mid(9));
    assert_eq!(parsed(r#"{"roomid":"r"}"#), Token::default(), "another name");
}

#[test]
fn unknown_fields_are_ignored_whatever_they_hold() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let body = format!(r#"{{"x":{deep},"y":1e999,"z":{{"mid":"no"}},"caps":5,"mid":2}}"#);
    assert_eq!(parsed(&body).mid, Mid(2));
}

#[test]
fn the_last_of_several_counts_and_a_null_field_changes_nothing() {
    assert_eq!(parsed(r#"{"mid":1,"Mid":2,"mid":3}"#).mid, Mid(3));
    assert_eq!(parsed(r#"{"mid":1,"mid":null}"#).mid, Mid(1));
    let token = parsed(r#"{"mid":null,"key":null,"room_id":null,"platform":null,"accepts":null}"#);
    assert_eq!(token, Token::default());
    assert_eq!(parsed(r#"{"key":"k","key":null}"#).key, "k");
    assert_eq!(parsed(r#"{"accepts":[1,2],"accepts":[3]}"#).accepts, [3]);
    assert_eq!(parsed(r#"{"accepts":[1],"accepts":null}"#).accepts, [0; 0], "Go empties a list");
    assert_eq!(parsed(r#"{"accepts":[1,null]}"#).accepts, [1, 0]);
}

#[test]
fn a_wrong_type_is_refused() {
    for body in [
        r#"{"mid":"1"}"#,
        r#"{"mid":1.0}"#,
        r#"{"mid":1e3}"#,
        r#"{"mid":9223372036854775808}"#,
        r#"{"mid":true}"#,
        r#"{"mid":{}}"#,
        r#"{"key":1}"#,
        r#"{"room_id":[]}"#,
        r#"{"platform":7}"#,
        r#"{"accepts":7}"#,
        r#"{"accepts":"1000"}"#,
        r#"{"accepts":["1000"]}"#,
        r#"{"accepts":[1.5]}"#,
        r#"{"mid":"1","mid":1}"#,
    ] {
        refused(body.as_bytes());
    }
}

/// Go reads it as 0; here it is a fraction, as for most readers of JSON.
#[test]
fn minus_zero_is_refused_as_a_mid() {
    refused(br#"{"mid":-0}"#);
    assert!(parsed(r#"{"mid":0}"#).mid.is_anonymous());
}

#[test]
fn an_accept_beyond_32_bits_is_refused() {
    assert_eq!(parsed(r#"{"accepts":[2147483647,-2147483648]}"#).accepts, [i32::MAX, i32::MIN]);
    refused(br#"{"accepts":[2147483648]}"#);
    refused(br#"{"accepts":[-2147483649]}"#);
}

#[test]
fn trailing_garbage_a_list_an_empty_body_and_broken_json_are_refused() {
    let bodies: [&[u8]; 12] = [
        b"",
        b" ",
        b"{}x",
        b"{}{}",
        b"null,",
        b"[]",
        b"[{}]",
        b"\"k\"",
        b"1",
        b"{\"mid\":1",
        b"{'mid':1}",
        b"\xef\xbb\xbf{}",
    ];
    for body in bodies {
        refused(body);
    }
    assert_eq!(parsed("{} \n"), Token::default(), "white space is no garbage");
}

#[test]
fn bytes_that_are_not_utf8_become_replacement_characters_one_each() {
    assert_eq!(Token::parse(b"{\"key\":\"a\xffb\xe2\x82\"}").unwrap().key, "a\u{fffd}b\u{fffd}\u{fffd}");
    refused(b"{\"mid\":1\xff}");
}

#[test]
fn half_a_surrogate_pair_becomes_a_replacement_character() {
    for (body, key) in [
        (r#"{"key":"\ud83d\ude00"}"#, "😀"),
        (r#"{"key":"\ud83d"}"#, "\u{fffd}"),
        (r#"{"key":"\ude00x"}"#, "\u{fffd}x"),
        (r#"{"key":"\ud83d\ud83d\ude00"}"#, "\u{fffd}😀"),
        (r#"{"key":"\ud83d\u0041"}"#, "\u{fffd}A"),
        (r#"{"key":"\\ud83d"}"#, "\\ud83d"),
    ] {
        assert_eq!(parsed(body).key, key, "{body}");
    }
    refused(br#"{"key":"\u12"}"#);
    refused(br#"{"key":"\u+123"}"#);
}

#[test]
fn only_caps_are_read_from_an_announcement() {
    let envelope = Caps { envelope: true, ..Caps::default() };
    let both = Caps { rooms: true, ..envelope };
    for (body, caps) in [
        (r#"{"mid":1,"caps":["envelope","rooms","move"]}"#, Caps { moves: true, ..both }),
        (r#"{"caps":["move"]}"#, Caps { moves: true, ..envelope }),
        (r#"{"CAPS":["envelope"]}"#, envelope),
        (r#"{"mid":"wrong","accepts":7,"caps":["envelope"]}"#, envelope),
        (r#"{"token":"eyJh","caps":["rooms"]}"#, both),
        (r#"{"caps":["rooms"],"caps":["envelope"]}"#, envelope),
    ] {
        assert_eq!(announced(body.as_bytes()), caps, "{body}");
    }
}

#[test]
fn a_client_moves_only_when_it_says_so() {
    for (body, moving) in [
        (r#"{"mid":1,"moving":true}"#, true),
        (r#"{"Moving":true,"accepts":"?"}"#, true),
        (r#"{"moving":false}"#, false),
        (r#"{"moving":1}"#, false),
        (r#"{"moving":null}"#, false),
        ("{}", false),
        ("eyJhbGciOi.J9.x", false),
    ] {
        assert_eq!(is_moving(body.as_bytes()), moving, "{body}");
    }
}

#[test]
fn whatever_does_not_say_announces_nothing() {
    let bodies: [&[u8]; 11] = [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"eyJhbGciOi.J9.x",
        b"{\"caps\":null}",
        b"{\"caps\":\"rooms\"}",
        b"{\"caps\":[1]}",
        b"{\"caps\":{\"rooms\":true}}",
        b"{\"caps\":[\"rooms\"]",
        b"\xff\xff",
    ];
    for body in bodies {
        assert!(!announced(body).any(), "{}", String::from_utf8_lossy(body));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (Token::parse(&body), announced(&body));
    }

    #[test]
    fn nothing_that_looks_like_a_token_makes_it_panic(body in r#"[\[\]{}:,"\\ud8c0-9a-f\-.\xff]{0,60}"#) {
        let _ = (Token::parse(body.as_bytes()), announced(body.as_bytes()));
    }

    #[test]
    fn every_token_survives_json(mid in any::<i64>(), key in any::<String>(), accepts in any::<Vec<i32>>()) {
        let body = serde_json::json!({"mid": mid, "key": key, "accepts": accepts}).to_string();
        let expected = Token { mid: Mid(mid), key, accepts, ..Token::default() };
        prop_assert_eq!(Token::parse(body.as_bytes()).unwrap(), expected);
    }
}
