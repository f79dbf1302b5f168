//! A request extension that shows whether extensions reach the handler.

/// A mark on a call. An interceptor or layer of the server puts it into the request's extensions,
/// and the handler reports it as metadata with the key [`KEY`](Self::KEY).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(pub String);

impl Mark {
    /// The metadata key with which a handler reports the mark.
    pub const KEY: &str = "x-mark-in-extensions";
}
