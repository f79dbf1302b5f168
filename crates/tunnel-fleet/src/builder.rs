//! The settings of a gateway's place in a fleet, as its user gives them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Endpoint;
use tunnel_client::Gateway;

use crate::directory::{Directory, MemoryDirectory};
use crate::fleet::Fleet;
use crate::hops::{self, Connect, Hops};
use crate::record::{Denial, GatewayRecord};
use crate::settings::{Exclusive, OnDenial, Settings};
use crate::shared::Shared;

/// The time to live of a gateway's lease.
const TTL: Duration = Duration::from_secs(5);

impl Fleet {
    /// A builder for the place of a gateway with this name: a DNS label, and the same after each start.
    pub fn builder(name: impl Into<String>) -> FleetBuilder {
        FleetBuilder::new(name.into())
    }
}

/// The builder of a gateway's place in a fleet; from [`Fleet::builder`].
#[must_use = "a builder does nothing until it is built"]
pub struct FleetBuilder {
    settings: Settings,
    directory: Option<Arc<dyn Directory>>,
    connect: Box<Connect>,
    hops_per_gateway: usize,
    suspect_after: Duration,
}

impl FleetBuilder {
    pub(crate) fn new(name: String) -> Self {
        Self {
            settings: Settings {
                fleet: "default".into(),
                name,
                record: GatewayRecord {
                    version: env!("CARGO_PKG_VERSION").into(),
                    ..GatewayRecord::default()
                },
                ttl: TTL,
                exclusive: Exclusive::default(),
                refuse_while_stale: false,
                sweep_after: (Duration::from_secs(10), Duration::from_secs(60)),
                on_denial: None,
            },
            directory: None,
            connect: Box::new(|address| {
                let endpoint = Endpoint::from_shared(address.to_owned());
                endpoint
                    .map(Gateway::from)
                    .map_err(|error| error.to_string())
            }),
            hops_per_gateway: 1,
            suspect_after: hops::SUSPECT_AFTER,
        }
    }

    /// The directory that all gateways of the fleet share. Default: none, for a gateway that is alone: it publishes nothing, and
    /// its own devices are all there are.
    pub fn directory(mut self, directory: impl Directory) -> Self {
        self.directory = Some(Arc::new(directory));
        self
    }

    /// The name of the fleet. Several fleets can share a directory. Default: `default`.
    pub fn fleet(mut self, name: impl Into<String>) -> Self {
        self.settings.fleet = name.into();
        self
    }

    /// The address where other gateways reach the [service of hops](Fleet::hop_service) of this one, as a URI:
    /// `https://10.0.0.7:7001`. Default: none, which means that devices here are reached from here alone.
    pub fn advertise(mut self, hop: impl Into<String>) -> Self {
        self.settings.record.hop = Some(hop.into());
        self
    }

    /// The addresses where devices reach this gateway, as URIs: siblings send devices there before they stop. Default: none.
    pub fn public_addresses(mut self, addresses: impl IntoIterator<Item = String>) -> Self {
        self.settings.record.public = addresses.into_iter().collect();
        self
    }

    /// The zone of this gateway. Routes to gateways of the same zone are preferred. Default: none.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.settings.record.zone = Some(zone.into());
        self
    }

    /// The version of the program, for operators. Default: that of this crate.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.settings.record.version = version.into();
        self
    }

    /// How the tunnel to another gateway is opened, from the address that it advertises: with TLS, in production.
    /// Default: an [`Endpoint`] without TLS settings.
    ///
    /// ```
    /// use tonic::transport::Endpoint;
    /// use tunnel_fleet::Fleet;
    ///
    /// let fleet = Fleet::builder("edge-1").connect_with(|address| {
    ///     let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|e| e.to_string())?;
    ///     Ok(endpoint.into()) // with .tls_config(..) of your certificates
    /// });
    /// # let _ = fleet;
    /// ```
    pub fn connect_with(
        mut self,
        connect: impl Fn(&str) -> Result<Gateway, String> + Send + Sync + 'static,
    ) -> Self {
        self.connect = Box::new(connect);
        self
    }

    /// How many tunnels are kept up to each other gateway. Default and minimum: 1.
    pub fn hops_per_gateway(mut self, count: usize) -> Self {
        self.hops_per_gateway = count.max(1);
        self
    }

    /// The silence of another gateway after which routes over it are tried last; it says that it lives each 500 ms. A
    /// gateway that is silent for 5 s is given up: calls in flight there fail, and it is dialled again. Default: 1 s.
    pub fn suspect_after(mut self, silence: Duration) -> Self {
        self.suspect_after = silence;
        self
    }

    /// Whether a key belongs to one device at a time. Default: [`Exclusive::No`].
    pub fn exclusive(mut self, exclusive: Exclusive) -> Self {
        self.settings.exclusive = exclusive;
        self
    }

    /// Whether devices are refused with UNAVAILABLE while the directory does not answer, because a denial may not have
    /// been heard. Default: false.
    pub fn refuse_while_stale(mut self, refuse: bool) -> Self {
        self.settings.refuse_while_stale = refuse;
        self
    }

    /// The time to live of the gateway's lease. The others hear of a gateway that was killed after this time at
    /// the latest; calls are routed around it at once. Default: 5 s.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl.max(Duration::from_secs(1));
        self
    }

    /// The shortest and longest time after which records are removed that a gateway has left behind. Default: 10 to
    /// 60 s.
    pub fn sweep_after(mut self, least: Duration, most: Duration) -> Self {
        self.settings.sweep_after = (least, most);
        self
    }

    /// Called when a key is denied, before its tunnels are ended, and when it may connect again: `None`. It must not
    /// block, and hears of a denial again after the directory was away. Default: nothing.
    pub fn on_denial(
        mut self,
        hook: impl Fn(&str, Option<&Denial>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_denial = Some(OnDenial(Arc::new(hook)));
        self
    }

    /// Builds the gateway's place. It is empty until [`join`](Fleet::join).
    pub fn build(self) -> Fleet {
        let hops = Hops::new(self.connect, self.hops_per_gateway, self.suspect_after);
        let is_alone = self.directory.is_none();
        let directory = self
            .directory
            .unwrap_or_else(|| Arc::new(MemoryDirectory::new()));
        Fleet::new(Shared::new(self.settings, directory, is_alone, hops))
    }
}

impl fmt::Debug for FleetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetBuilder")
            .field("settings", &self.settings)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}
