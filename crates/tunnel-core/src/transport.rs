//! Why the transport under a tunnel broke, and how errors are printed.

use std::error::Error;
use std::fmt::{self, Write as _};

/// The cause of a broken transport under a tunnel, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TransportCause {
    /// The peer did not answer a keepalive ping of this end. Hyper reports this only while a tunnel
    /// is being opened; later it reports [`Io`](Self::Io).
    #[error("the peer did not answer a keepalive ping in time")]
    KeepaliveTimedOut,
    /// The peer ended the connection because keepalive pings were too frequent.
    #[error("the peer ended the connection because it was pinged too often")]
    TooManyPings,
    /// The peer ended the connection because of its load.
    #[error("the peer ended the connection because of the load on it")]
    EnhanceYourCalm,
    /// The peer ended the connection with another HTTP/2 error.
    #[error("the peer ended the connection")]
    GoAway,
    /// The stream that carries the tunnel was reset.
    #[error("the tunnel's stream was reset")]
    Reset,
    /// The stream was reset after it had carried 1 MiB or more, as by a proxy that limits request
    /// bodies.
    #[error(
        "the tunnel's stream was reset after much was sent on it: the likely cause is a proxy that \
         limits the size of request bodies (nginx: client_max_body_size, 1 MiB by default)"
    )]
    BodyLimit,
    /// The connection broke.
    #[error("the connection broke")]
    Io,
    /// The far end's half of the outer call ended without a status.
    #[error("the far end ended the tunnel without a status")]
    EndedWithoutStatus,
    /// The received bytes ended inside a frame.
    #[error("the stream ended inside a frame")]
    EndedInsideFrame,
    /// The transport dropped this end's half of the stream without a reason.
    #[error("the transport dropped the tunnel's stream")]
    StreamDropped,
    /// The task that reads the tunnel was dropped, with its runtime.
    #[error("the tunnel's task was dropped")]
    TaskDropped,
    /// The tunnel that carried this one ended.
    #[error("the tunnel that carried it ended")]
    OuterTunnel,
    /// Another cause, or an unknown one.
    #[error("the transport failed")]
    Other,
}

/// Why the transport under a tunnel broke: a [cause](Self::cause) for programs, and the
/// transport's own words as the [source](Error::source).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportError {
    cause: TransportCause,
    detail: Option<Detail>,
}

impl TransportError {
    /// The longest detail, in bytes.
    const MAX_DETAIL: usize = 512;

    /// The cause.
    pub fn cause(&self) -> TransportCause {
        self.cause
    }

    /// Adds the transport's own words. Control characters are escaped, and the text is cut after
    /// 512 bytes. An empty text adds nothing.
    #[must_use]
    pub fn with_detail(mut self, detail: &str) -> Self {
        let mut text = Printable(detail).to_string();
        let mut end = text.len().min(Self::MAX_DETAIL);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        self.detail = (!text.is_empty()).then_some(Detail(text));
        self
    }
}

impl From<TransportCause> for TransportError {
    fn from(cause: TransportCause) -> Self {
        Self {
            cause,
            detail: None,
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for TransportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.detail.as_ref().map(|detail| detail as _)
    }
}

/// The transport's own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Detail(String);

/// Displays text of a peer safely for logs and error messages: control characters are escaped.
///
/// ```
/// assert_eq!(tunnel_core::Printable("red \x1b[31m\n").to_string(), r"red \u{1b}[31m\n");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if is_harmless(c) => f.write_char(c),
            c => c.escape_default().try_for_each(|c| f.write_char(c)),
        })
    }
}

/// Whether a character neither controls a terminal nor changes the order of others.
fn is_harmless(c: char) -> bool {
    let reorders =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !reorders
}

/// Displays an error and its sources in one line.
///
/// A source whose text is already part of the line is left out.
///
/// ```
/// use tunnel_core::{ConnectionError, EndReason, Report, TransportCause, TransportError};
///
/// let error = TransportError::from(TransportCause::Io).with_detail("broken pipe");
/// let reason = EndReason::Error(ConnectionError::TransportLost(error));
/// assert_eq!(reason.to_string(), "the tunnel's connection was lost");
/// assert_eq!(
///     Report(&reason).to_string(),
///     "the tunnel's connection was lost: the connection broke: broken pipe",
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Report<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = Printable(&self.0.to_string()).to_string();
        let sources = std::iter::successors(self.0.source(), |error| (**error).source());
        for source in sources {
            let sentence = Printable(&source.to_string()).to_string();
            if !all.contains(&sentence) {
                write!(all, ": {sentence}")?;
            }
        }
        f.write_str(&all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_printable_and_bounded() {
        let detail = "\u{1b}[31m\r\n".repeat(1000) + "end";
        let error = TransportError::from(TransportCause::Other).with_detail(&detail);
        let text = error.source().expect("a detail").to_string();
        assert!(text.len() <= TransportError::MAX_DETAIL);
        assert!(!text.chars().any(char::is_control), "{text}");
        let empty = TransportError::from(TransportCause::Other).with_detail("");
        assert!(empty.source().is_none());
    }

    #[test]
    fn ordinary_text_is_not_escaped() {
        let text = "grün, 100 %, «☃», \"quoted\" 🦀";
        assert_eq!(Printable(text).to_string(), text);
    }
}
