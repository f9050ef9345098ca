//! The parameters of a request, read from the URL alone: Go's `url.ParseQuery` and gin's binding.
//!
//! Lists repeat their name, of a scalar the first value wins, and what cannot be unescaped is as good as not said.

use super::answer::Refusal;
use super::number::parse_int;

/// Names and values in the order they were written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Query {
    /// Reads a raw query. Pairs with a `;` or a bad `%` escape are dropped, as Go drops them.
    pub fn parse(raw: &str) -> Self {
        let pairs = raw
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.contains(';'))
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((unescape(name, true)?, unescape(value, true)?))
            })
            .collect();
        Self { pairs }
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.pairs.iter().filter(move |(n, _)| n == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// The first value as text, empty when there is none.
    pub fn text(&self, name: &str) -> String {
        self.values(name).next().map_or_else(String::new, lossy)
    }

    /// Every value as text.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.values(name).map(lossy).collect()
    }

    /// The first value as a number of 32 bits, 0 when it is empty or missing.
    ///
    /// # Errors
    /// [`Refusal::Parameter`] with Go's text.
    pub fn int32(&self, name: &str) -> Result<i32, Refusal> {
        let value = self.int(name, 32)?;
        Ok(i32::try_from(value).expect("parse_int keeps to its bits"))
    }

    /// The first value as a number of 64 bits, 0 when it is empty or missing.
    ///
    /// # Errors
    /// [`Refusal::Parameter`] with Go's text.
    pub fn int64(&self, name: &str) -> Result<i64, Refusal> {
        self.int(name, 64)
    }

    fn int(&self, name: &str, bits: u32) -> Result<i64, Refusal> {
        self.values(name).next().map_or(Ok(0), |text| parse_int(text, bits)).map_err(Refusal::Parameter)
    }

    /// Every value as a number of 64 bits.
    ///
    /// # Errors
    /// [`Refusal::Parameter`] with Go's text for the first that is none.
    pub fn int64s(&self, name: &str) -> Result<Vec<i64>, Refusal> {
        self.values(name).map(|text| parse_int(text, 64)).collect::<Result<_, _>>().map_err(Refusal::Parameter)
    }
}

/// Refuses when a required parameter is missing or zero, naming every such field as gin's validator does.
///
/// # Errors
/// [`Refusal::Parameter`].
pub fn required(fields: &[(&str, bool)]) -> Result<(), Refusal> {
    let missing: Vec<String> =
        fields.iter().filter(|(_, given)| !given).map(|(field, _)| violation(field, "required")).collect();
    if missing.is_empty() { Ok(()) } else { Err(Refusal::Parameter(missing.join("\n"))) }
}

/// One line of gin's validator.
pub fn violation(field: &str, tag: &str) -> String {
    format!("Key: '{field}' Error:Field validation for '{field}' failed on the '{tag}' tag")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Undoes `%` escapes, and `+` for space when asked; `None` when an escape is not one.
pub fn unescape(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => hex(bytes.next()?)? * 16 + hex(bytes.next()?)?,
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    Some(out)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_repeat_commas_stay_and_the_first_scalar_wins() {
        let query = Query::parse("keys=a&keys=b,c&keys=&operation=1&operation=2");
        assert_eq!(query.texts("keys"), ["a", "b,c", ""]);
        assert_eq!(query.int32("operation").unwrap(), 1);
        assert_eq!(query.text("absent"), "");
        assert_eq!(query.int64("absent").unwrap(), 0);
    }

    #[test]
    fn escapes_are_undone_and_what_cannot_be_is_dropped() {
        let query = Query::parse("room=a+b%2Fc&type=%zz&a;b=1&x=1;y=2&%41=%E7%BE%A4&z&&short=%4");
        assert_eq!(query.text("room"), "a b/c");
        assert_eq!(query.text("type"), "");
        assert_eq!(query.text("A"), "群");
        assert_eq!(query.texts("z"), [""]);
        assert_eq!((query.texts("x").len(), query.texts("y").len(), query.texts("short").len()), (0, 0, 0));
    }
}
