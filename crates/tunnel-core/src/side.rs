//! The two sides of a tunnel: caller and handler.

/// The side of a tunnel: the caller issues calls and the handler serves them.
///
/// This says nothing about who dialled the connection. In a forward tunnel the
/// caller dialled, in a reverse tunnel the handler did; the state machine is
/// the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Issues calls; sends `ClientToServer` messages.
    Caller,
    /// Serves calls; sends `ServerToClient` messages.
    Handler,
}

impl Side {
    /// The other end.
    pub fn peer(self) -> Self {
        match self {
            Self::Caller => Self::Handler,
            Self::Handler => Self::Caller,
        }
    }
}
