//! A gateway of the program `tunnel`, with a forwarder before its hops and one before each node of etcd.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tunnel_process::Signal;

use crate::forwarder::{Forwarder, Mode};
use crate::program::{Program, free_address, until};
use crate::web;

/// How long a gateway says that it is not ready before it drains, in seconds. Balancers must notice in this time.
const NOTICE: u64 = 1;

/// How long calls in flight may go on, in seconds.
const DRAIN: u64 = 20;

/// How long a gateway may take to stop.
const STOP: Duration = Duration::from_secs(60);

/// What a gateway is started with.
pub(crate) struct Plan<'a> {
    pub(crate) name: String,
    pub(crate) fleet: &'a str,
    /// The program `tunnel`.
    pub(crate) program: &'a Path,
    pub(crate) etcd: &'a [SocketAddr],
    /// The value of `--exclusive-keys`.
    pub(crate) exclusive: &'a str,
    /// The directory for logs.
    pub(crate) logs: &'a Path,
    /// The value of `--log`.
    pub(crate) log: &'a str,
    /// Further arguments.
    pub(crate) more: &'a [&'a str],
}

/// A gateway, which runs or not. It is killed when it is dropped.
pub(crate) struct Gateway {
    program: Program,
    binary: PathBuf,
    arguments: Vec<String>,
    pub(crate) agents: SocketAddr,
    pub(crate) clients: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) http: SocketAddr,
    /// The other gateways reach this one through it.
    hops: Forwarder,
    /// The gateway reaches the nodes of etcd through them.
    etcd: Vec<Forwarder>,
}

impl Gateway {
    /// Starts a gateway, and waits until it is ready.
    pub(crate) async fn start(plan: Plan<'_>) -> Result<Self> {
        let hop = free_address()?;
        let hops = Forwarder::to(hop).await?;
        let mut etcd = Vec::new();
        for node in plan.etcd {
            etcd.push(Forwarder::to(*node).await?);
        }
        let [agents, clients, admin, http] = [
            free_address()?,
            free_address()?,
            free_address()?,
            free_address()?,
        ];
        let mut arguments: Vec<String> = ["--log", plan.log, "gateway", "--insecure-keys"]
            .into_iter()
            .chain(plan.more.iter().copied())
            .map(str::to_owned)
            .collect();
        let mut flag = |name: &str, value: String| {
            arguments.push(format!("--{name}"));
            arguments.push(value);
        };
        for forwarder in &etcd {
            flag("etcd", format!("http://{}", forwarder.address));
        }
        for (name, value) in [
            ("fleet", plan.fleet.to_owned()),
            ("name", plan.name.clone()),
            ("hop-listen", hop.to_string()),
            ("advertise", format!("http://{}", hops.address)),
            ("exclusive-keys", plan.exclusive.to_owned()),
            ("agents-listen", agents.to_string()),
            ("clients-listen", clients.to_string()),
            ("admin-listen", admin.to_string()),
            ("http-listen", http.to_string()),
            ("drain-notice", NOTICE.to_string()),
            ("drain-timeout", DRAIN.to_string()),
        ] {
            flag(name, value);
        }
        let mut gateway = Self {
            program: Program::new(&format!("{}-{}", plan.fleet, plan.name), plan.logs),
            binary: plan.program.to_owned(),
            arguments,
            agents,
            clients,
            admin,
            http,
            hops,
            etcd,
        };
        gateway.begin().await?;
        Ok(gateway)
    }

    /// Starts it again, and waits until it is ready.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments);
        self.program.start(&mut command)?;
        let (http, program) = (self.http, &mut self.program);
        until("a gateway is ready", async || {
            program.check()?;
            Ok(web::is_ok(http, "/readyz").await)
        })
        .await
    }

    /// Waits until its restart would cost no key, and stops it.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let (binary, admin) = (&self.binary, self.admin.to_string());
        until("tunnel drain --check succeeds", async || {
            let mut check = tokio::process::Command::new(binary);
            check.args(["drain", "--check", "--admin", &admin]);
            let check = check.stdin(Stdio::null()).output().await;
            Ok(check.context("cannot run tunnel drain")?.status.success())
        })
        .await?;
        self.program.stop(STOP).await
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.program.kill()
    }

    /// Stops the process, which keeps its connections.
    pub(crate) fn freeze(&mut self) -> Result<()> {
        self.program.signal(Signal::Stop)
    }

    pub(crate) fn thaw(&mut self) -> Result<()> {
        self.program.signal(Signal::Continue)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.program.is_running()
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.program.id()
    }

    /// What happens to the hops of the other gateways to this one.
    pub(crate) fn hops(&self) -> &Forwarder {
        &self.hops
    }

    /// What happens to the way of the gateway to etcd.
    pub(crate) fn set_etcd(&self, mode: Mode) {
        for forwarder in &self.etcd {
            forwarder.set(mode);
        }
    }

    pub(crate) async fn is_ready(&self) -> bool {
        web::is_ok(self.http, "/readyz").await
    }

    pub(crate) fn note(&mut self) {
        self.program.note();
    }
}
