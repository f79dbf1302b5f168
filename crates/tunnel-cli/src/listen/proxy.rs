//! The header of the PROXY protocol, in both versions.
//!
//! Exactly the header is read: what follows it belongs to TLS or HTTP/2.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header of version 2, with its extensions.
const MAX_V2: usize = 4096;

/// The part of a header of version 2 before the addresses.
const FIXED_V2: usize = PREFIX + 4;

/// The longest header of version 1.
const MAX_V1: usize = 107;

/// The length of the prefix of version 2. No header is shorter.
const PREFIX: usize = v2::PROTOCOL_PREFIX.len();

/// Reads a header. Returns the address of the client. `None`: the connection is the load balancer's own, such as a
/// health check, or the balancer does not tell.
///
/// # Errors
///
/// There is no header, or it is illegal.
pub(super) async fn read_source(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; PREFIX];
    stream.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        return read_v2(stream, header).await;
    }
    if header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        return read_v1(stream, header).await;
    }
    Err(illegal("no header of the PROXY protocol"))
}

async fn read_v2(
    stream: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> io::Result<Option<SocketAddr>> {
    header.resize(FIXED_V2, 0);
    stream.read_exact(&mut header[PREFIX..]).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if length > MAX_V2 {
        return Err(illegal("the header of the PROXY protocol is too long"));
    }
    header.resize(FIXED_V2 + length, 0);
    stream.read_exact(&mut header[FIXED_V2..]).await?;
    let header = v2::Header::try_from(&*header).map_err(illegal)?;
    if header.command == v2::Command::Local {
        return Ok(None);
    }
    Ok(match header.addresses {
        v2::Addresses::IPv4(a) => Some((a.source_address, a.source_port).into()),
        v2::Addresses::IPv6(a) => Some((a.source_address, a.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    })
}

async fn read_v1(
    stream: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> io::Result<Option<SocketAddr>> {
    // Byte by byte, for nothing after the line may be read.
    while !header.ends_with(b"\n") {
        if header.len() == MAX_V1 {
            return Err(illegal("the header of the PROXY protocol is too long"));
        }
        header.push(stream.read_u8().await?);
    }
    let header = v1::Header::try_from(&*header).map_err(illegal)?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(a) => Some((a.source_address, a.source_port).into()),
        v1::Addresses::Tcp6(a) => Some((a.source_address, a.source_port).into()),
        v1::Addresses::Unknown => None,
    })
}

fn illegal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The source, and what is left after the header.
    async fn read(bytes: &[u8]) -> io::Result<(Option<SocketAddr>, Vec<u8>)> {
        let mut stream = bytes;
        let source = read_source(&mut stream).await?;
        Ok((source, stream.to_vec()))
    }

    fn version_2(command: v2::Command) -> Vec<u8> {
        let addresses: (SocketAddr, SocketAddr) = (
            "[2001:db8::1]:9".parse().expect("an address"),
            "[2001:db8::2]:8".parse().expect("an address"),
        );
        let builder = v2::Builder::with_addresses(
            v2::Version::Two | command,
            v2::Protocol::Stream,
            addresses,
        );
        let builder = builder.write_tlv(v2::Type::NoOp, &[0; 40]).expect("short");
        builder.build().expect("legal")
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_what_follows() {
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 9 8\r\nPRI * HTTP/2.0";
        let (source, rest) = read(line).await.expect("legal");
        assert_eq!(source, Some("192.0.2.1:9".parse().expect("an address")));
        assert_eq!(rest, b"PRI * HTTP/2.0");
        let mut header = version_2(v2::Command::Proxy);
        header.extend(b"rest");
        let (source, rest) = read(&header).await.expect("legal");
        assert_eq!(source, Some("[2001:db8::1]:9".parse().expect("an address")));
        assert_eq!(rest, b"rest");
    }

    #[tokio::test]
    async fn connections_of_the_balancer_keep_their_address() {
        let (source, _) = read(&version_2(v2::Command::Local)).await.expect("legal");
        assert_eq!(source, None);
        let (source, _) = read(b"PROXY UNKNOWN\r\n").await.expect("legal");
        assert_eq!(source, None);
    }

    #[tokio::test]
    async fn what_is_not_a_header_is_refused() {
        let mut long = v2::PROTOCOL_PREFIX.to_vec();
        long.extend([0x21, 0x11, 0xff, 0xff]);
        long.resize(70_000, 0);
        let mut line = b"PROXY TCP4 ".to_vec();
        line.resize(1000, b'1');
        let truncated = &version_2(v2::Command::Proxy)[..30];
        for bytes in [&b"PRI * HTTP/2.0\r\n\r\n"[..], b"", &long, &line, truncated] {
            assert!(read(bytes).await.is_err());
        }
        assert!(read(b"PROXY TCP4 a b c d\r\n").await.is_err());
    }
}
