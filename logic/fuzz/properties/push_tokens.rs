//! The push tokens file and the `Authorization` header, any bytes for both, with a NUL between them: nothing panics, an
//! error is one line that begins with the file, and who is let in has a token whose hash is in the file.

use logic::http::Route;
use logic::tokens::Tokens;
use sha2::{Digest, Sha256};

/// Panics where it does not hold.
pub fn holds(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (text, header) = (parts.next().unwrap_or_default(), parts.next());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.toml");
    std::fs::write(&path, text).unwrap();
    let tokens = match Tokens::open(&path) {
        Ok(tokens) => tokens,
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("push tokens file /") && !error.contains('\n'), "{error}");
            return;
        }
    };
    assert_eq!(tokens.status(), "present");
    for route in Route::ALL.into_iter().filter(|route| route.pushes()) {
        if tokens.admit(header, route).is_ok() {
            let (scheme, token) = header.expect("nobody is let in without a header").split_at(7);
            assert!(scheme.eq_ignore_ascii_case(b"Bearer "));
            let hash: String = Sha256::digest(token.trim_ascii()).iter().map(|byte| format!("{byte:02x}")).collect();
            // TOML may write it with escapes; without any it stands there.
            let text = String::from_utf8(text.to_vec()).expect("a file that was taken is text");
            assert!(text.contains('\\') || text.to_ascii_lowercase().contains(&hash), "{header:?}");
        }
    }
}
