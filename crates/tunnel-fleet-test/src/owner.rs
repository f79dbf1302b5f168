//! Which process has a connection of this machine: on Linux, from `/proc`.
//!
//! A forwarder stands before each gateway, and the other gateways come to it from one address. To cut one of them off, it
//! must know them apart.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// The process whose socket is bound to this address.
pub(crate) fn of(address: SocketAddr) -> Option<u32> {
    let inode = inode(&fs::read_to_string("/proc/net/tcp").ok()?, address)?;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|id| {
        let files = fs::read_dir(format!("/proc/{id}/fd"));
        let mut links = files.into_iter().flatten().flatten();
        links.any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*wanted))
    })
}

/// The inode of the socket with this local address, in the table of the kernel.
fn inode(table: &str, address: SocketAddr) -> Option<u64> {
    let IpAddr::V4(ip) = address.ip() else {
        return None;
    };
    let local = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(ip.octets()),
        address.port()
    );
    let mut rows = table.lines().map(|line| line.split_whitespace());
    rows.find_map(|mut fields| match fields.nth(1) == Some(&local) {
        // After the local address: peer, state, queues, timer, retransmits, user, timeout.
        true => fields.nth(7)?.parse().ok(),
        false => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inode_of_a_socket_stands_in_its_row() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1B58 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100\n";
        if cfg!(target_endian = "little") {
            let address = SocketAddr::from(([127, 0, 0, 1], 7000));
            assert_eq!(inode(table, address), Some(4711));
            let other = SocketAddr::from(([127, 0, 0, 1], 7001));
            assert_eq!(inode(table, other), None);
        }
    }
}
