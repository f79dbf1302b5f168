//! HAProxy and nginx from their packages, with the minimum configuration for a gRPC backend.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tunnel_process::{Process, Show, Signal, find_program};

/// The time limit for a proxy to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kind of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// HAProxy with the timeouts of Debian's `haproxy.cfg`: 50 s.
    Haproxy,
    /// nginx with its defaults: timeouts of 60 s, bodies of up to 1 MiB.
    Nginx,
    /// nginx with the setting that `docs/PROXIES.md` recommends.
    NginxForTunnels,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::NginxForTunnels => "nginx, as advised",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx | Self::NginxForTunnels => "nginx",
        }
    }

    /// The path of the program, if it is installed.
    pub(crate) fn find(self) -> Option<PathBuf> {
        find_program(self.program())
    }

    fn config(self, directory: &Path, port: u16, target: SocketAddr) -> String {
        match self {
            Self::Haproxy => format!(
                "global\n\
                 \x20   # In a container HAProxy may else prepare for a billion connections.\n\
                 \x20   maxconn 256\n\
                 defaults\n\
                 \x20   mode http\n\
                 \x20   # As in the package's own configuration.\n\
                 \x20   timeout connect 5000\n\
                 \x20   timeout client 50000\n\
                 \x20   timeout server 50000\n\
                 frontend grpc\n\
                 \x20   bind 127.0.0.1:{port} proto h2\n\
                 \x20   default_backend servers\n\
                 backend servers\n\
                 \x20   server one {target} proto h2\n"
            ),
            Self::Nginx | Self::NginxForTunnels => {
                let advised = match self {
                    Self::NginxForTunnels => "client_max_body_size 0;",
                    _ => "",
                };
                let directory = directory.display();
                format!(
                    "daemon off;\n\
                     pid {directory}/nginx.pid;\n\
                     error_log {directory}/error.log;\n\
                     events {{}}\n\
                     http {{\n\
                     \x20   access_log off;\n\
                     \x20   server {{\n\
                     \x20       listen 127.0.0.1:{port} http2;\n\
                     \x20       location / {{\n\
                     \x20           grpc_pass grpc://{target};\n\
                     \x20           {advised}\n\
                     \x20       }}\n\
                     \x20   }}\n\
                     }}\n"
                )
            }
        }
    }
}

/// A running proxy in front of one server. It ends when this value is dropped.
pub(crate) struct Proxy {
    process: Process,
    pub(crate) address: SocketAddr,
    /// The configuration.
    _directory: TempDir,
}

impl Proxy {
    /// Starts a proxy in front of a server and waits until the proxy listens.
    pub(crate) fn start(kind: Kind, target: SocketAddr) -> Result<Self> {
        let program = kind
            .find()
            .with_context(|| format!("{} is missing", kind.program()))?;
        let directory = tempfile::Builder::new().prefix("tunnel-field-").tempdir()?;
        // Another program could take the port before the proxy does. That is unlikely here.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let file = directory.path().join("proxy.conf");
        fs::write(&file, kind.config(directory.path(), port, target))?;
        let mut command = Command::new(program);
        match kind {
            Kind::Haproxy => command.arg("-db").arg("-f").arg(&file),
            _ => command.arg("-p").arg(directory.path()).arg("-c").arg(&file),
        };
        let process = Process::start(command.stdin(Stdio::null()), Show::Nothing)?;
        let mut proxy = Self {
            process,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            _directory: directory,
        };
        proxy.wait_until_it_listens(kind)?;
        Ok(proxy)
    }

    fn wait_until_it_listens(&mut self, kind: Kind) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if start.elapsed() > PATIENCE {
                let words = self.process.last_words();
                bail!("{} does not listen: {words}", kind.name());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx has a master and workers. The master ends its workers when it receives SIGTERM.
        let _ = self.process.stop(Signal::Terminate, PATIENCE);
    }
}
