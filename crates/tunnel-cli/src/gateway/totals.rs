//! What all tunnels have carried together.

use tunnel_server::Stats;

/// Sums over tunnels. Sent and received are as the gateway sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Tunnels that have opened since the start.
    pub(crate) tunnels: u64,
    pub(crate) calls: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    /// Of the open tunnels.
    pub(crate) calls_in_flight: u64,
    /// Bytes of messages that wait in the open tunnels.
    pub(crate) memory_used: u64,
    pub(crate) tunnels_open: u64,
    /// Keys with an open tunnel.
    pub(crate) devices_connected: u64,
}

impl Totals {
    /// Adds what a tunnel, open or closed, has carried.
    pub(crate) fn add_traffic(&mut self, stats: &Stats) {
        self.calls += stats.streams_total;
        self.bytes_sent += stats.bytes_sent;
        self.bytes_received += stats.bytes_received;
        self.messages_sent += stats.messages_sent;
        self.messages_received += stats.messages_received;
    }

    /// Adds an open tunnel.
    pub(crate) fn add_open(&mut self, stats: &Stats) {
        self.add_traffic(stats);
        self.tunnels_open += 1;
        self.calls_in_flight += stats.streams as u64;
        self.memory_used += (stats.unread_bytes + stats.queued_bytes) as u64;
    }
}
