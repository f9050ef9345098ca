//! Numbers in a query, read and refused as Go's `strconv` does: backends match on its texts.

use std::fmt::Write as _;

/// Reads a decimal number of `bits` bits; empty text is 0, as gin binds it.
///
/// # Errors
/// `strconv.ParseInt`'s text.
pub fn parse_int(text: &[u8], bits: u32) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (negative, digits) = match text[0] {
        b'+' => (false, &text[1..]),
        b'-' => (true, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(format!("strconv.ParseInt: parsing {}: invalid syntax", quote(text)));
    }
    let limit = 1_i128 << (bits - 1);
    let mut value = 0_i128;
    for digit in digits {
        value = (value * 10 + i128::from(digit - b'0')).min(limit + 1);
    }
    let value = if negative { -value } else { value };
    if value >= limit || value < -limit {
        return Err(format!("strconv.ParseInt: parsing {}: value out of range", quote(text)));
    }
    Ok(value as i64)
}

/// Quotes bytes as Go's `strconv.Quote` does: printable text stays, the rest is escaped.
fn quote(text: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(c, &mut out);
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("a String takes everything");
        }
    }
    out.push('"');
    out
}

fn quote_char(c: char, out: &mut String) {
    let written = match c {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\x07' => out.write_str("\\a"),
        '\x08' => out.write_str("\\b"),
        '\x0c' => out.write_str("\\f"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\x0b' => out.write_str("\\v"),
        c if c < ' ' || c == '\x7f' => write!(out, "\\x{:02x}", u32::from(c)),
        c if is_print(c) => out.write_char(c),
        c if u32::from(c) < 0x1_0000 => write!(out, "\\u{:04x}", u32::from(c)),
        c => write!(out, "\\U{:08x}", u32::from(c)),
    };
    written.expect("a String takes everything");
}

/// Whether it shows; behind a letter, so that combining marks count as shown.
fn is_print(c: char) -> bool {
    c.is_ascii() || !['a', c].iter().collect::<String>().escape_debug().any(|c| c == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_refused_in_the_words_of_go() {
        for (text, bits, expected) in [
            ("", 32, Ok(0)),
            ("1000", 32, Ok(1000)),
            ("+7", 32, Ok(7)),
            ("-7", 32, Ok(-7)),
            ("007", 32, Ok(7)),
            ("2147483647", 32, Ok(2_147_483_647)),
            ("-2147483648", 32, Ok(-2_147_483_648)),
            ("9223372036854775807", 64, Ok(i64::MAX)),
            ("2147483648", 32, Err(r#"strconv.ParseInt: parsing "2147483648": value out of range"#)),
            ("-2147483649", 32, Err(r#"strconv.ParseInt: parsing "-2147483649": value out of range"#)),
            ("9223372036854775808", 64, Err(r#"strconv.ParseInt: parsing "9223372036854775808": value out of range"#)),
            (
                "99999999999999999999999999999999999999999",
                64,
                Err(concat!(
                    r#"strconv.ParseInt: parsing "99999999999999999999999999999999999999999": "#,
                    "value out of range"
                )),
            ),
            ("x", 32, Err(r#"strconv.ParseInt: parsing "x": invalid syntax"#)),
            ("1.0", 32, Err(r#"strconv.ParseInt: parsing "1.0": invalid syntax"#)),
            (" 1", 32, Err(r#"strconv.ParseInt: parsing " 1": invalid syntax"#)),
            ("1_0", 32, Err(r#"strconv.ParseInt: parsing "1_0": invalid syntax"#)),
            ("-", 32, Err(r#"strconv.ParseInt: parsing "-": invalid syntax"#)),
            ("0x10", 32, Err(r#"strconv.ParseInt: parsing "0x10": invalid syntax"#)),
        ] {
            assert_eq!(parse_int(text.as_bytes(), bits), expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn what_does_not_show_is_escaped_as_go_quotes_it() {
        for (bytes, quoted) in [
            (&b"a\"\\\n\x01\x7f"[..], r#""a\"\\\n\x01\x7f""#),
            (b"\xff\xfe", r#""\xff\xfe""#),
            ("群é\u{301}".as_bytes(), "\"群é\u{301}\""),
            ("\u{200b}\u{e0001}".as_bytes(), r#""\u200b\U000e0001""#),
        ] {
            assert_eq!(quote(bytes), quoted);
        }
    }
}
