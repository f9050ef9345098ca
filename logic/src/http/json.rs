//! JSON text as Go's `encoding/json` writes it: compact, `<`, `>` and `&` escaped, whole floats without a fraction.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

/// Writes a value as Go would.
///
/// # Panics
/// When the value cannot be JSON; ours all can.
pub fn to_vec(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    value.serialize(&mut Serializer::with_formatter(&mut out, Go)).expect("our answers are JSON");
    out
}

struct Go;

impl Formatter for Go {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, tail) = rest.split_at(at);
            let escaped = tail.chars().next().expect("find points at a character");
            write!(writer, "{plain}\\u{:04x}", u32::from(escaped))?;
            rest = &tail[escaped.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        let text = match escape {
            CharEscape::Quote => "\\\"",
            CharEscape::ReverseSolidus => "\\\\",
            CharEscape::Solidus => "/",
            CharEscape::Backspace => "\\u0008",
            CharEscape::FormFeed => "\\u000c",
            CharEscape::LineFeed => "\\n",
            CharEscape::CarriageReturn => "\\r",
            CharEscape::Tab => "\\t",
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04x}"),
        };
        writer.write_all(text.as_bytes())
    }

    fn write_f32<W: ?Sized + Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        write!(writer, "{value}") // Rust's shortest text has no fraction for whole numbers either
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_go_escapes_it() {
        assert_eq!(
            to_vec(&"<a> & \"b\"\u{2028}\u{8}\u{c}\u{1}/群"),
            r#""\u003ca\u003e \u0026 \"b\"\u2028\u0008\u000c\u0001/群""#.as_bytes()
        );
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        assert_eq!(to_vec(&[1.8_f32, 0.3, 2.0]), b"[1.8,0.3,2]");
    }
}
