//! Links: tunnels that are kept up, of either direction.
//!
//! A `Link` is a loop that keeps one tunnel to one gateway up; `Shared` holds what all links of a
//! server or channel have in common. What becomes of a tunnel, once it is open, is its `Purpose`:
//! it serves calls, or it joins a pool of tunnels that calls choose from.

mod activity;
mod credentials;
mod gateway_state;
mod handle;
mod link;
mod reconnect;
mod registry;
mod settings;
mod shared;
mod status;

pub use credentials::Attempt;
pub use handle::LinksHandle;
pub use status::{LinkError, LinkState, LinkStatus, StandIn, StopReason};

pub(crate) use credentials::Credentials;
pub(crate) use settings::{Settings, link_settings};
pub(crate) use shared::{Purpose, Shared};

/// A text of a far end, for a log: control characters, which could break lines or worse, are
/// written as escapes.
pub(crate) fn printable(text: &impl ToString) -> String {
    let mut printable = String::new();
    for c in text.to_string().chars() {
        match c.is_control() {
            true => printable.extend(c.escape_default()),
            false => printable.push(c),
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_text_of_a_far_end_stays_on_its_line() {
        let text = "no\r\n\u{1b}[31mWARN all is well: it\'s \u{fc}ber";
        let printed = super::printable(&text);
        assert_eq!(
            printed,
            "no\\r\\n\\u{1b}[31mWARN all is well: it's \u{fc}ber"
        );
    }
}
