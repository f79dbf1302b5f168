//! A mark that shows whether request extensions reach the handler.

/// Marks a call: an interceptor or a layer of the far side may put one in the
/// request's extensions, and the handler reports it as metadata under this key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(pub String);

impl Mark {
    /// The key under which a handler reports the mark it found.
    pub const KEY: &str = "x-mark-in-extensions";
}
