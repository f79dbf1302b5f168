//! HAProxy before all gateways, which asks each whether it is ready.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use crate::gateway::Gateway;
use tunnel_process::find_program;

use crate::program::{Program, free_address, until};

/// A running HAProxy. It ends when it is dropped.
pub(crate) struct Haproxy {
    program: Program,
    pub(crate) address: SocketAddr,
}

impl Haproxy {
    pub(crate) async fn start(gateways: &[Gateway], directory: &Path) -> Result<Self> {
        let program = find_program("haproxy")
            .context("haproxy is missing; on Debian: apt-get install haproxy")?;
        let address = free_address()?;
        let servers = gateways.iter().enumerate().map(|(number, gateway)| {
            format!(
                "    server g{number} {} proto h2 check check-proto h1 addr 127.0.0.1 port {} inter 200ms fall 1 rise 1\n",
                gateway.clients,
                gateway.http.port()
            )
        });
        let config = format!(
            "global\n    maxconn 256\n\
             defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\
             \x20   # Only before a request was sent, so that no call is made twice.\n\
             \x20   retry-on conn-failure\n    retries 3\n    option redispatch 1\n\
             frontend clients\n    bind {address} proto h2\n    default_backend gateways\n\
             backend gateways\n    balance roundrobin\n    option httpchk GET /readyz\n{}",
            servers.collect::<String>()
        );
        let file = directory.join("haproxy.cfg");
        fs::write(&file, config)?;
        let mut haproxy = Self {
            program: Program::new("haproxy", directory),
            address,
        };
        haproxy
            .program
            .start(Command::new(program).arg("-db").arg("-f").arg(file))?;
        let program = &mut haproxy.program;
        until("HAProxy listens", async || {
            program.check()?;
            Ok(TcpStream::connect(address).await.is_ok())
        })
        .await?;
        Ok(haproxy)
    }
}
