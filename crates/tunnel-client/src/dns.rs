//! Lookups by DNS: the addresses of a name, and SRV records.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{IntoName, RData};
use hickory_resolver::{Resolver, TokioResolver};

use crate::dial::BoxError;

/// What is asked for, and whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dns {
    /// Those of the system if empty.
    pub(crate) servers: Vec<SocketAddr>,
    /// A name with SRV records, instead of the name of the gateway.
    srv: Option<Arc<str>>,
}

impl Dns {
    pub(crate) fn srv(name: Arc<str>) -> Self {
        let srv = Some(name);
        Self {
            srv,
            ..Self::default()
        }
    }

    /// The addresses of a host, or those of the SRV records, in groups by priority.
    pub(crate) async fn look_up(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Vec<Vec<SocketAddr>>, BoxError> {
        let resolver = self.resolver()?;
        let Some(srv) = &self.srv else {
            return Ok(vec![addresses(&resolver, host, port).await?]);
        };
        let records = resolver.srv_lookup(&**srv).await?;
        let mut groups: BTreeMap<u16, Vec<SocketAddr>> = BTreeMap::new();
        let mut failed = None;
        for record in records.answers() {
            // A root as target says that there is no such service.
            let RData::SRV(record) = &record.data else {
                continue;
            };
            if record.target.is_root() {
                continue;
            }
            match addresses(&resolver, record.target.clone(), record.port).await {
                Ok(found) => groups.entry(record.priority).or_default().extend(found),
                Err(error) => failed = Some(error),
            }
        }
        match failed.filter(|_| groups.is_empty()) {
            Some(error) => Err(error.into()),
            None => Ok(groups.into_values().collect()),
        }
    }

    /// A new one for each lookup: the system's settings change when a device moves to another network. It has no
    /// cache, because lookups after a failure must see what has changed.
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match self.servers.is_empty() {
            true => TokioResolver::builder_tokio()?,
            false => {
                let servers = self.servers.iter().map(|&server| name_server(server));
                let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build()
    }
}

async fn addresses(
    resolver: &TokioResolver,
    host: impl IntoName,
    port: u16,
) -> Result<Vec<SocketAddr>, NetError> {
    let found = resolver.lookup_ip(host).await?;
    Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    NameServerConfig::new(server.ip(), true, connections)
}
