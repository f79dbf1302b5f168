//! Nodes of etcd.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use tunnel_process::{etcd_member, find_program};

use crate::program::{Program, free_address, until};
use crate::web;

/// How long a node may take to stop.
const STOP: Duration = Duration::from_secs(20);

/// The number of nodes in the table of faults.
pub(crate) const NODES: usize = 3;

struct Node {
    program: Program,
    data: PathBuf,
    clients: SocketAddr,
    peers: SocketAddr,
}

/// A cluster of etcd.
pub(crate) struct Etcd {
    nodes: Vec<Node>,
}

impl Etcd {
    /// Starts a cluster, and waits until it answers. Its data is in the directory.
    pub(crate) async fn start(directory: &Path, nodes: usize) -> Result<Self> {
        let nodes = (0..nodes).map(|number| {
            let name = format!("etcd-{number}");
            Ok(Node {
                data: directory.join(format!("{name}.data")),
                program: Program::new(&name, directory),
                clients: free_address()?,
                peers: free_address()?,
            })
        });
        let mut etcd = Self {
            nodes: nodes.collect::<Result<_>>()?,
        };
        for node in 0..etcd.nodes.len() {
            etcd.begin(node)?;
        }
        etcd.answers().await?;
        Ok(etcd)
    }

    /// The address of each node for clients.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.clients).collect()
    }

    /// Starts a node that does not run.
    pub(crate) fn begin(&mut self, node: usize) -> Result<()> {
        let named = |(number, node): (usize, &Node)| format!("etcd-{number}=http://{}", node.peers);
        let cluster: Vec<_> = self.nodes.iter().enumerate().map(named).collect();
        let program = find_program("etcd")
            .context("etcd is missing; on Debian: apt-get install etcd-server")?;
        let Node {
            data,
            clients,
            peers,
            ..
        } = &self.nodes[node];
        let mut command = etcd_member(
            &program,
            &format!("etcd-{node}"),
            data,
            &format!("http://{clients}"),
            &format!("http://{peers}"),
            &cluster.join(","),
        );
        command.args(["--initial-cluster-state", "new", "--log-level", "warn"]);
        self.nodes[node].program.start(&mut command)
    }

    /// Waits until all nodes answer.
    pub(crate) async fn answers(&self) -> Result<()> {
        for node in &self.nodes {
            until("a node of etcd is healthy", async || {
                Ok(web::is_ok(node.clients, "/health").await)
            })
            .await?;
        }
        Ok(())
    }

    /// Kills a node.
    pub(crate) fn kill(&mut self, node: usize) -> Result<()> {
        self.nodes[node].program.kill()
    }

    /// Stops a node, starts it again, and waits until all nodes answer.
    pub(crate) async fn restart(&mut self, node: usize) -> Result<()> {
        self.nodes[node].program.stop(STOP).await?;
        self.begin(node)?;
        self.answers().await
    }

    /// Starts all nodes that do not run, and waits until all answer.
    pub(crate) async fn heal(&mut self) -> Result<()> {
        for node in 0..self.nodes.len() {
            if !self.nodes[node].program.is_running() {
                self.begin(node)?;
            }
        }
        self.answers().await
    }

    /// The leader among the nodes.
    pub(crate) async fn leader(&self) -> Result<usize> {
        for (number, node) in self.nodes.iter().enumerate() {
            let asked = web::ask(node.clients, "POST", "/v3/maintenance/status", "{}").await;
            let Ok((200, body)) = asked else { continue };
            // The body may be in one chunk.
            let json = body.find('{').zip(body.rfind('}'));
            let json = json.and_then(|(from, to)| body.get(from..=to));
            let status: serde_json::Value = serde_json::from_str(json.context("no JSON")?)?;
            if status["header"]["member_id"] == status["leader"] {
                return Ok(number);
            }
        }
        anyhow::bail!("etcd has no leader")
    }

    pub(crate) fn note(&mut self) {
        for node in &mut self.nodes {
            node.program.note();
        }
    }
}
