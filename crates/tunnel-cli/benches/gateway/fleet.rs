//! Two gateways that are a fleet.

use std::path::Path;

use anyhow::Result;
use tunnel_process::{Process, Show, etcd_member};

use crate::certificates::Certificates;
use crate::programs::{Gateway, Programs, connect_until, free};

/// Two gateways, and the etcd that they share. They end when this is dropped.
pub(crate) struct Fleet {
    /// For the client.
    pub(crate) near: Gateway,
    /// For the agent.
    pub(crate) far: Gateway,
    _etcd: Process,
    _directory: tempfile::TempDir,
}

impl Fleet {
    pub(crate) async fn start(
        programs: &Programs,
        etcd: &str,
        certificates: Option<&Certificates>,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (clients, peers) = (format!("http://{}", free()?), format!("http://{}", free()?));
        let cluster = format!("default={peers}");
        let (program, data) = (Path::new(etcd), directory.path());
        let mut command = etcd_member(program, "default", data, &clients, &peers, &cluster);
        let etcd = Process::start(&mut command, Show::Nothing)?;
        connect_until(&clients).await?;
        let gateway = async |name: &str| {
            let mut more = vec!["--etcd".into(), clients.clone().into()];
            more.extend(["--name".into(), name.into()]);
            more.extend(["--hop-listen".into(), "127.0.0.1:0".into()]);
            if let Some(certificates) = certificates {
                for (flag, file) in [
                    ("--hop-cert", "localhost"),
                    ("--hop-key", "localhost-key"),
                    ("--hop-ca", "hop-ca"),
                ] {
                    more.extend([flag.into(), certificates.path(file).into()]);
                }
                more.extend(["--hop-server-name".into(), "localhost".into()]);
            }
            programs.gateway_with(certificates, &more).await
        };
        Ok(Self {
            near: gateway("near").await?,
            far: gateway("far").await?,
            _etcd: etcd,
            _directory: directory,
        })
    }
}
