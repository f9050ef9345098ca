use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn header(token: &str) -> Vec<u8> {
    format!("Bearer {token}").into_bytes()
}

fn admit(tokens: &Tokens, token: &str, route: Route) -> Result<(), Denied> {
    tokens.admit(Some(&header(token)), route)
}

#[test]
fn a_made_token_opens_every_push_route() {
    let (token, lines) = make("standalone");
    let (_dir, path) = file(&lines);
    let tokens = Tokens::open(&path).unwrap();
    assert!(token.starts_with("imc_") && token.len() == 52, "{token}");
    assert!(!lines.contains(&token));
    for route in [Route::PushKeys, Route::PushMids, Route::PushRoom, Route::PushAll] {
        assert_eq!(admit(&tokens, &token, route), Ok(()));
    }
    assert_eq!(tokens.admit(Some(format!("bearer {token}").as_bytes()), Route::PushAll), Ok(()));
    assert_eq!(tokens.status(), "present");
}

#[test]
fn an_unknown_token_or_none_opens_nothing() {
    let (token, lines) = make("a");
    let (_dir, path) = file(&lines);
    let tokens = Tokens::open(&path).unwrap();
    assert_eq!(tokens.admit(None, Route::PushAll), Err(Denied::Unknown));
    assert_eq!(tokens.admit(Some(b"Bearer "), Route::PushAll), Err(Denied::Unknown));
    assert_eq!(tokens.admit(Some(b"Bea"), Route::PushAll), Err(Denied::Unknown));
    assert_eq!(tokens.admit(Some(format!("Basic {token}").as_bytes()), Route::PushAll), Err(Denied::Unknown));
    assert_eq!(admit(&tokens, &format!("{token}0"), Route::PushAll), Err(Denied::Unknown));
}

#[test]
fn a_token_opens_only_its_routes() {
    let (token, lines) = make("rooms");
    let (_dir, path) = file(&lines.replace("\"*\"", "\"push/room\""));
    let tokens = Tokens::open(&path).unwrap();
    assert_eq!(admit(&tokens, &token, Route::PushRoom), Ok(()));
    assert_eq!(admit(&tokens, &token, Route::PushAll), Err(Denied::Route("rooms".to_owned())));
}

#[test]
fn a_token_has_its_rate_and_reading_the_file_again_does_not_refill_it() {
    let (token, lines) = make("slow");
    let (_dir, path) = file(&format!("{lines}rate = 0.001\n"));
    let tokens = Tokens::open(&path).unwrap();
    assert_eq!(admit(&tokens, &token, Route::PushAll), Ok(()));
    assert!(matches!(admit(&tokens, &token, Route::PushAll), Err(Denied::Rate(seconds)) if seconds > 900));
    std::fs::write(&path, format!("{lines}rate = 0.001\n\n# longer\n")).unwrap();
    assert!(tokens.reload().unwrap());
    assert!(matches!(admit(&tokens, &token, Route::PushAll), Err(Denied::Rate(_))));
}

#[test]
fn a_changed_file_is_read_and_a_bad_one_leaves_the_old_tokens() {
    let (first, lines) = make("first");
    let (_dir, path) = file(&lines);
    let tokens = Tokens::open(&path).unwrap();
    std::fs::write(&path, "[[token]]\nname = 1\n").unwrap();
    assert!(tokens.reload().unwrap_err().to_string().contains("tokens.toml"));
    assert_eq!(admit(&tokens, &first, Route::PushAll), Ok(()));

    let (second, more) = make("second");
    std::fs::write(&path, &more).unwrap();
    assert!(tokens.reload().unwrap());
    assert!(!tokens.reload().unwrap());
    assert_eq!(admit(&tokens, &first, Route::PushAll), Err(Denied::Unknown));
    assert_eq!(admit(&tokens, &second, Route::PushAll), Ok(()));

    std::fs::remove_file(&path).unwrap();
    assert!(!tokens.reload().unwrap());
    assert_eq!(admit(&tokens, &second, Route::PushAll), Ok(()));
}

#[tokio::test]
async fn a_file_that_comes_later_is_found_by_itself() {
    let (_dir, path) = file("");
    std::fs::remove_file(&path).unwrap();
    let tokens = Tokens::open(&path).unwrap();
    assert_eq!(tokens.status(), "missing");
    let following = tokio::spawn(tokens.clone().follow());
    let (token, lines) = make("late");
    std::fs::write(&path, lines).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while admit(&tokens, &token, Route::PushAll).is_err() {
        assert!(Instant::now() < deadline, "the file was not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    following.abort();
}

#[test]
fn a_bad_file_says_what_was_expected() {
    let hash = "0".repeat(64);
    for (text, expected) in [
        ("[[token]]\nname = \"a\"\nsha256 = \"12\"\nroutes = [\"*\"]".to_owned(), "64 hex digits"),
        (format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\nroutes = [\"push/rooms\"]"), "not `push/rooms`"),
        (format!("[[token]]\nname = \"\"\nsha256 = \"{hash}\"\nroutes = []"), "expected a name"),
        (format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\nroutes = []\nrate = 0"), "pushes a second"),
        (format!("[[token]]\nname = \"a\"\nsha256 = \"{hash}\"\nroute = []"), "unknown field `route`"),
    ] {
        let (_dir, path) = file(&text);
        let error = Tokens::open(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
}
