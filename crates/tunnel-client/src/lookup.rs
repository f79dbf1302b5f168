//! Looking up the addresses of a gateway's name.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tunnel_tonic::TunnelError;

use crate::dial::BoxError;
#[cfg(feature = "dns")]
use crate::dns::Dns;

/// The default time between lookups.
const INTERVAL: Duration = Duration::from_secs(60);

/// The default number of addresses that are used at once.
const MAX_ADDRESSES: usize = 16;

/// How the addresses of a gateway's name are found, and how often, for
/// [`Gateway::each_address`](crate::Gateway::each_address). Cheap to clone.
///
/// A name is looked up again after [`interval`](Self::interval), and soon after a tunnel to one of its addresses
/// failed. An address that is found is added at run time, and one that is not found any more is removed
/// ([`remove_gateway`](crate::LinksHandle::remove_gateway) says what happens to its tunnels). A lookup that fails,
/// or finds nothing, changes nothing: the known addresses stay, and it is repeated with the
/// [`Backoff`](crate::Backoff) of the builder.
#[derive(Clone)]
#[must_use = "a lookup does nothing unless it is given to a gateway"]
pub struct Lookup {
    source: Source,
    filter: Option<Arc<Filter>>,
    pub(crate) interval: Duration,
    pub(crate) max_addresses: usize,
}

type Filter = dyn Fn(&SocketAddr) -> bool + Send + Sync;

/// Addresses in groups. A group is for the case that all addresses of those before it have failed.
pub(crate) type Groups = Vec<Vec<SocketAddr>>;

#[derive(Clone, Debug)]
enum Source {
    System,
    #[cfg(feature = "dns")]
    Dns(Dns),
}

impl Default for Lookup {
    /// The same as [`system`](Self::system).
    fn default() -> Self {
        Self::system()
    }
}

impl Lookup {
    /// As the system finds addresses, which includes its hosts file and its cache.
    pub fn system() -> Self {
        Self::from(Source::System)
    }

    /// Asks the DNS servers of `/etc/resolv.conf` (Windows: of the registry) for records A and AAAA, and reads the
    /// hosts file. Only [`name_servers`](Self::name_servers) and [`srv`](Self::srv) need this.
    #[cfg(feature = "dns")]
    pub fn dns() -> Self {
        Self::from(Source::Dns(Dns::default()))
    }

    /// Asks for the SRV records of a name, `_service._proto.name`, as [`dns`](Self::dns) does. Each names a port and a
    /// host, whose addresses are looked up.
    ///
    /// The records decide only where connections go. TLS verifies the name of the gateway's
    /// [`Endpoint`](tonic::transport::Endpoint), not the names in the records, because an answer of DNS can be forged.
    ///
    /// The addresses with the lowest priority number are used. While tunnels to all of them fail, those with the next
    /// number are used too. Weights have no meaning, because there are tunnels to each address.
    ///
    /// ```
    /// use tonic::transport::Endpoint;
    /// use tunnel_client::{Gateway, Lookup};
    ///
    /// let gateway = Gateway::from(Endpoint::from_static("http://gateways.example"))
    ///     .each_address(Lookup::srv("_tunnel._tcp.gateways.example"));
    /// # let _ = gateway;
    /// ```
    #[cfg(feature = "dns")]
    pub fn srv(name: impl Into<String>) -> Self {
        Self::from(Source::Dns(Dns::srv(name.into().into())))
    }

    fn from(source: Source) -> Self {
        Self {
            source,
            filter: None,
            interval: INTERVAL,
            max_addresses: MAX_ADDRESSES,
        }
    }

    /// The DNS servers to ask, by UDP and TCP, instead of those of the system. Changes [`system`](Self::system) to
    /// [`dns`](Self::dns). Default: those of the system.
    #[cfg(feature = "dns")]
    pub fn name_servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut dns = match self.source {
            Source::System => Dns::default(),
            Source::Dns(dns) => dns,
        };
        dns.servers = servers.into_iter().collect();
        self.source = Source::Dns(dns);
        self
    }

    /// The time between lookups that succeed. Each is drawn between 80 % and 100 %, so that devices do not ask
    /// together. Default: 60 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The most addresses that are used at once. Of more, some are chosen at random, and kept as long as they are
    /// found. Default: 16. Minimum: 1.
    pub fn max_addresses(mut self, max: usize) -> Self {
        self.max_addresses = max.max(1);
        self
    }

    /// Which addresses are used. For example one family alone, if gateways have an address of each. Default: all.
    ///
    /// ```
    /// use tunnel_client::Lookup;
    /// let lookup = Lookup::system().filter(|address| address.is_ipv4());
    /// # let _ = lookup;
    /// ```
    pub fn filter(mut self, filter: impl Fn(&SocketAddr) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Arc::new(filter));
        self
    }

    /// Finds the addresses of a URI's host, in random order. Fails if there are none.
    pub(crate) async fn look_up(&self, uri: &http::Uri) -> Result<Groups, TunnelError> {
        self.find(uri).await.map_err(|error| {
            let failed = LookupFailed(error);
            let mut status = Status::unavailable(failed.to_string());
            status.set_source(Arc::new(failed));
            TunnelError::Channel(status)
        })
    }

    async fn find(&self, uri: &http::Uri) -> Result<Groups, BoxError> {
        let (host, port) = host_and_port(uri).ok_or("the gateway's URI has no host")?;
        let mut groups: Groups = match &self.source {
            Source::System => vec![tokio::net::lookup_host((host, port)).await?.collect()],
            #[cfg(feature = "dns")]
            Source::Dns(dns) => dns.look_up(host, port).await?,
        };
        for group in &mut groups {
            group.sort_unstable();
            group.dedup();
            group.retain(|address| self.filter.as_ref().is_none_or(|filter| filter(address)));
            fastrand::shuffle(group);
        }
        groups.retain(|group| !group.is_empty());
        match groups.is_empty() {
            true => Err(format!("no addresses were found for {host}").into()),
            false => Ok(groups),
        }
    }
}

/// Where a URI leads to.
pub(crate) fn host_and_port(uri: &http::Uri) -> Option<(&str, u16)> {
    // IPv6 addresses have brackets.
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    });
    Some((host, port))
}

#[derive(Debug, thiserror::Error)]
#[error("the lookup of the gateway's addresses failed")]
struct LookupFailed(#[source] BoxError);

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup")
            .field("source", &self.source)
            .field("interval", &self.interval)
            .field("max_addresses", &self.max_addresses)
            .finish_non_exhaustive()
    }
}
