//! Addresses on a command line: `localhost:50051`, `127.0.0.1:0`, `[::1]:50051`.

use std::fmt;
use std::str::FromStr;

/// The default address of the examples.
pub const DEFAULT: &str = "localhost:50051";

/// A host and a port.
///
/// ```
/// use example_support::address::Address;
///
/// let address: Address = "localhost:50051".parse()?;
/// assert_eq!(address.port(), 50051);
/// assert_eq!(address.url(), "http://localhost:50051");
/// # Ok::<(), example_support::address::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The host: a name, or an address of either family without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port. For a server, 0 means any free port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host with another port.
    pub fn with_port(&self, port: u16) -> Self {
        Self {
            host: self.host.clone(),
            port,
        }
    }

    /// The URL for a gRPC client without TLS.
    pub fn url(&self) -> String {
        format!("http://{self}")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text)?;
        Ok(Self {
            host: check_host(host)?.to_owned(),
            port: port.parse().map_err(|_| AddressError::Port(port.into()))?,
        })
    }
}

/// Separates host and port. An IPv6 address is written in brackets.
fn split(text: &str) -> Result<(&str, &str), AddressError> {
    if text.contains("://") {
        return Err(AddressError::Scheme);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(AddressError::Bracket)?;
        let port = rest.strip_prefix(':').ok_or(AddressError::NoPort)?;
        return Ok((host, port));
    }
    let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
    if host.contains(':') {
        return Err(AddressError::Bracket);
    }
    Ok((host, port))
}

fn check_host(host: &str) -> Result<&str, AddressError> {
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    let belongs = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    if !host.chars().all(belongs) {
        return Err(AddressError::Host(host.into()));
    }
    Ok(host)
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The host is missing.
    NoHost,
    /// The host has characters that are not allowed.
    Host(String),
    /// The port is missing.
    NoPort,
    /// The port is not a number between 0 and 65535.
    Port(String),
    /// It is a URL.
    Scheme,
    /// An IPv6 address is not enclosed in brackets.
    Bracket,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHost => f.write_str("there is no host in front of the port")?,
            Self::Host(host) => write!(f, "`{host}` is not the name of a host")?,
            Self::NoPort => f.write_str("there is no port")?,
            Self::Port(port) => write!(f, "the port is a number up to 65535, not `{port}`")?,
            Self::Scheme => f.write_str("leave out what stands before and with ://")?,
            Self::Bracket => return f.write_str("an IPv6 address is written as [::1]:50051"),
        }
        write!(f, "; an address is written as {DEFAULT}")
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::{Address, AddressError};

    #[test]
    fn addresses_come_out_as_they_went_in() {
        for text in ["localhost:50051", "127.0.0.1:0", "[::1]:65535", "a-b.c:1"] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        let address: Address = "[::1]:80".parse().expect("an IPv6 address");
        assert_eq!((address.host(), address.port()), ("::1", 80));
        assert_eq!(address.url(), "http://[::1]:80");
        assert_eq!(address.with_port(8080).to_string(), "[::1]:8080");
    }

    #[test]
    fn mistakes_are_called_by_their_name() {
        let mistakes = [
            ("", AddressError::NoPort),
            ("localhost", AddressError::NoPort),
            ("[::1]", AddressError::NoPort),
            (":50051", AddressError::NoHost),
            ("[]:1", AddressError::NoHost),
            ("localhost:", AddressError::Port(String::new())),
            ("localhost:65536", AddressError::Port("65536".into())),
            ("localhost:http", AddressError::Port("http".into())),
            ("::1:50051", AddressError::Bracket),
            ("[::1:50051", AddressError::Bracket),
            ("http://localhost:1", AddressError::Scheme),
            ("local host:1", AddressError::Host("local host".into())),
            ("a/b:1", AddressError::Host("a/b".into())),
        ];
        for (text, mistake) in mistakes {
            assert_eq!(text.parse::<Address>(), Err(mistake), "{text}");
        }
    }
}
