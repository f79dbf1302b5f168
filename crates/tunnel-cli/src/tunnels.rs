//! The settings of tunnels, the same at both ends.

use tunnel_server::Config;

/// The metadata in which an agent says which key it wants, and a client which one it calls (unless the gateway has another
/// `key-metadata`).
pub(crate) const KEY_METADATA: &str = "tunnel-key";

/// Messages may be as large as the protocol allows: the program passes them on in pieces and keeps none whole. The
/// client and the server have limits of their own.
const MAX_MESSAGE: usize = u32::MAX as usize;

/// The settings of the tunnels of a gateway or an agent.
pub(crate) fn config() -> anyhow::Result<Config> {
    Ok(Config::builder().max_message_size(MAX_MESSAGE).build()?)
}
