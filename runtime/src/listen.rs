//! A port that cannot be listened on, as one line: the setting, its value, and what to change.

use std::fmt;
use std::io::{self, ErrorKind};

/// Why a port is not served.
#[derive(Debug)]
pub struct CannotListen {
    flag: &'static str,
    value: String,
    error: io::Error,
}

impl CannotListen {
    /// Listening on what `--flag` is set to failed with this error.
    pub fn new(flag: &'static str, value: impl fmt::Display, error: io::Error) -> Self {
        Self { flag, value: value.to_string(), error }
    }

    /// Which flag it is about, without its dashes.
    pub fn flag(&self) -> &'static str {
        self.flag
    }

    /// Whether no interface has the address, so that its port does not matter.
    pub fn is_of_the_address(&self) -> bool {
        self.error.kind() == ErrorKind::AddrNotAvailable
    }

    /// The same of another setting: the one that the address came from.
    #[must_use]
    pub fn of(self, flag: &'static str, value: impl fmt::Display) -> Self {
        Self { flag, value: value.to_string(), ..self }
    }

    /// What the process ends with: 64 for a port that this user can never have. 1 for a port in use and an address that
    /// no interface has: both may be had a moment later, when another process has ended or the interface is up.
    pub fn exit_code(&self) -> u8 {
        if self.error.kind() == ErrorKind::PermissionDenied { 64 } else { 1 }
    }
}

impl fmt::Display for CannotListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flag, value, error } = self;
        write!(f, "--{flag} is `{value}`: ")?;
        match error.kind() {
            ErrorKind::AddrInUse => f.write_str("address in use: end what listens there, or choose another port"),
            ErrorKind::AddrNotAvailable => {
                f.write_str("address not available: choose one that an interface of this machine has")
            }
            ErrorKind::PermissionDenied => {
                f.write_str("permission denied: choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE")
            }
            _ => write!(f, "cannot listen there: {error}"),
        }
    }
}

// The operating system's words are in the text already.
impl std::error::Error for CannotListen {}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: impl Into<io::Error>) -> (String, u8) {
        let error = CannotListen::new("http-addr", "127.0.0.1:80", error.into());
        (error.to_string(), error.exit_code())
    }

    #[test]
    fn a_port_that_cannot_be_had_is_one_line_with_setting_value_and_what_to_change() {
        for (kind, text, code) in [
            (ErrorKind::AddrInUse, "address in use: end what listens there, or choose another port", 1),
            (ErrorKind::AddrNotAvailable, "address not available: choose one that an interface of this machine has", 1),
            (
                ErrorKind::PermissionDenied,
                "permission denied: choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE",
                64,
            ),
        ] {
            assert_eq!(told(kind), (format!("--http-addr is `127.0.0.1:80`: {text}"), code));
        }
        let other = told(io::Error::other("no such host"));
        assert_eq!(other, ("--http-addr is `127.0.0.1:80`: cannot listen there: no such host".to_owned(), 1));
    }

    #[test]
    fn it_can_be_said_of_the_setting_that_the_address_came_from() {
        let error = CannotListen::new("tcp-bind", "192.0.2.1:3101", ErrorKind::AddrNotAvailable.into());
        assert!(error.is_of_the_address());
        assert!(error.of("bind", "192.0.2.1").to_string().starts_with("--bind is `192.0.2.1`: address not available"));
    }
}
