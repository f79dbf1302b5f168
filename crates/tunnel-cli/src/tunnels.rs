//! The settings of tunnels, the same at both ends.

use tunnel_server::Config;

/// Messages may be as large as the protocol allows: the program passes them on in pieces and keeps none whole. The
/// client and the server have limits of their own.
const MAX_MESSAGE: usize = u32::MAX as usize;

/// The settings of the tunnels of a gateway or an agent.
pub(crate) fn config() -> anyhow::Result<Config> {
    Ok(Config::builder().max_message_size(MAX_MESSAGE).build()?)
}
