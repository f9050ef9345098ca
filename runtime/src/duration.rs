//! Durations as goim's files write them: Go's syntax, such as `500ms`, `4m` or `1h30m`.

use std::time::Duration;

/// Reads a Go duration; a bare number is refused, as Go refuses it.
///
/// # Errors
/// What was expected, in words.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a duration such as 500ms, 4m or 1h30m, not `{text}`");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(expected)?;
        let number: f64 = rest[..digits].parse().map_err(|_| expected())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(expected()),
        };
        total += number * seconds;
        rest = &rest[unit_end..];
    }
    if text.is_empty() {
        return Err(expected());
    }
    Duration::try_from_secs_f64(total).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read_and_bare_numbers_refused() {
        for (text, millis) in [
            ("500ms", 500),
            ("4m", 240_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("0", 0),
            ("1s.5s", 1500),
            ("2.s.25m", 17_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "4 m", "1d", "-1s", ".s", "1.2.3s", "1s."] {
            assert!(parse(text).unwrap_err().contains("expected a duration"), "{text}");
        }
    }
}
