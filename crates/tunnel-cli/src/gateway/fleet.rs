//! The place of a gateway in a fleet, from its settings.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use http::Uri;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tunnel_fleet::directory::EtcdDirectory;
use tunnel_fleet::{Exclusive, Fleet, FleetBuilder, record};
use tunnel_server::{TunnelServiceHandler, TunnelServiceServer, server_for_tunnels};

use super::admin::{AdminService, Drain, Phase, from_peer};
use super::deny::{Denial, DenyList};
use super::presence::Presence;
use super::settings::{ExclusiveKeys, Settings};
use crate::admin::api::admin_server::AdminServer;
use crate::connect::{Credentials, read};
use crate::listen::{Incoming, Listener};

/// How long etcd must not have answered before the gateway asks the others whether it is cut off.
const CUT_OFF_AFTER: Duration = Duration::from_secs(30);

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How many tunnels a gateway with two cores opens in a second, with mutual TLS: an opening costs 0.3 ms of a core.
const OPENINGS_PER_SECOND: f64 = 5000.0;

/// How often metrics are recorded, and siblings are looked up.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// The gateway's place: in the fleet of its etcd, or alone. It listens for other gateways at an address.
pub(crate) fn open(
    settings: &Settings,
    listens_at: Option<SocketAddr>,
    deny: &Arc<DenyList>,
    presence: &Arc<Presence>,
) -> Result<Fleet> {
    let builder = Fleet::builder(settings.name.as_deref().unwrap_or("gateway"));
    let (deny, presence) = (deny.clone(), presence.clone());
    let builder = builder.on_denial(move |key, denial| {
        denied_elsewhere(&deny, &presence, key, denial);
    });
    let builder = match settings.has_fleet() {
        true => in_fleet(settings, listens_at, builder)?,
        false => builder,
    };
    Ok(builder.build())
}

fn in_fleet(
    settings: &Settings,
    listens_at: Option<SocketAddr>,
    builder: FleetBuilder,
) -> Result<FleetBuilder> {
    let mut builder = builder
        .directory(directory(settings)?)
        .version(env!("CARGO_PKG_VERSION"))
        .public_addresses(settings.public_address.clone())
        .refuse_while_stale(settings.refuse_while_stale)
        .exclusive(match settings.exclusive_keys {
            Some(ExclusiveKeys::Yes) => Exclusive::Yes,
            Some(ExclusiveKeys::Strict) => Exclusive::Strict,
            Some(ExclusiveKeys::No) | None => Exclusive::No,
        });
    if let Some(fleet) = &settings.fleet {
        builder = builder.fleet(fleet);
    }
    if let Some(zone) = &settings.zone {
        builder = builder.zone(zone);
    }
    let scheme = match settings.hop_cert {
        Some(_) => "https",
        None => "http",
    };
    let own = listens_at.map(|address| format!("{scheme}://{address}"));
    let advertised = settings.advertise.clone().or(own);
    if let Some(url) = &advertised {
        builder = builder.advertise(url);
    }
    let credentials = Credentials {
        ca: settings.hop_ca.clone(),
        cert: settings.hop_cert.clone(),
        cert_key: settings.hop_key.clone(),
        server_name: settings.hop_server_name.clone(),
        ..Credentials::default()
    };
    // Now, so that a mistake ends the start.
    credentials.endpoint(advertised.as_deref().unwrap_or("127.0.0.1:1"))?;
    Ok(builder.connect_with(move |address| Ok(credentials.gateway(address))))
}

fn directory(settings: &Settings) -> Result<EtcdDirectory> {
    let mut builder = EtcdDirectory::builder(&settings.etcd);
    if let (Some(user), Some(file)) = (&settings.etcd_user, &settings.etcd_password_file) {
        builder = builder.user(user, text(file)?);
    }
    if settings.etcd.iter().any(|url| url.starts_with("https://")) {
        let credentials = Credentials {
            ca: settings.etcd_ca.clone(),
            cert: settings.etcd_cert.clone(),
            cert_key: settings.etcd_key.clone(),
            ..Credentials::default()
        };
        builder = builder.tls(credentials.tls()?);
    }
    builder.build().context("etcd")
}

/// The text of a file, without the end of its line.
fn text(file: &Path) -> Result<String> {
    let text = String::from_utf8(read(file)?);
    let text = text.with_context(|| format!("{} is not text", file.display()))?;
    Ok(text.trim_end().to_owned())
}

/// Takes over a denial, or its end, that the fleet tells of. The file of the deny list is written aside.
fn denied_elsewhere(
    list: &Arc<DenyList>,
    presence: &Arc<Presence>,
    key: &str,
    denial: Option<&record::Denial>,
) {
    let (list, presence, key) = (list.clone(), presence.clone(), key.to_owned());
    let denial = denial.map(|denial| Denial {
        key: key.clone(),
        reason: denial.reason.clone(),
        until: denial
            .until
            .and_then(|until| UNIX_EPOCH.checked_add(Duration::from_millis(until))),
        by: denial.by.clone(),
        since: Some(SystemTime::now()),
    });
    tokio::task::spawn_blocking(move || {
        let saved = match denial {
            // Denied here already: by the operator who has asked this gateway.
            Some(_) if list.check(&key).is_err() => Ok(()),
            Some(denial) => {
                presence.denied(&denial);
                list.deny(denial)
            }
            None => list.allow(&key).map(|was_denied| {
                if was_denied {
                    presence.allowed(&key);
                }
            }),
        };
        if let Err(error) = saved {
            tracing::error!("the deny file is out of date: {error:#}");
        }
    });
}

/// The service for the other gateways: calls for devices that are here, and what operators ask.
pub(crate) fn hop_service(fleet: &Fleet, admin: Arc<AdminService>) -> TunnelServiceServer {
    let admin = InterceptedService::new(AdminServer::from_arc(admin), from_peer);
    let handler = TunnelServiceHandler::builder().add_service(admin);
    fleet.hop_handler(handler).build().service()
}

/// Serves the other gateways.
pub(crate) async fn serve_hops(service: TunnelServiceServer, at: Listener) {
    let server = server_for_tunnels(Server::builder()).add_service(service);
    let served = match at.incoming() {
        Incoming::Plain(incoming) => server.serve_with_incoming(incoming).await,
        Incoming::Tls(incoming) => server.serve_with_incoming(incoming).await,
    };
    if let Err(error) = served {
        tracing::error!(%error, "other gateways are not served any more");
    }
}

/// Says "not ready" while this gateway alone is cut off from etcd. If etcd is down for all, they stay ready: no
/// balancer may become empty for that.
pub(crate) async fn keep_ready(
    fleet: Fleet,
    ready: watch::Sender<bool>,
    drain: Drain,
    stops: watch::Receiver<bool>,
) {
    let mut stale_since: Option<Instant> = None;
    let mut is_out = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if *stops.borrow() || *drain.phase().borrow() != Phase::Serving {
            return;
        }
        stale_since = match fleet.stats().stale {
            true => stale_since.or_else(|| Some(Instant::now())),
            false => None,
        };
        let is_long = stale_since.is_some_and(|since| since.elapsed() >= CUT_OFF_AFTER);
        let cut_off = is_long && fleet.is_cut_off().await;
        if cut_off != is_out {
            is_out = cut_off;
            match cut_off {
                true => tracing::warn!("not ready: etcd answers other gateways, and not this one"),
                false => tracing::info!("ready: etcd answers again"),
            }
            ready.send_replace(!cut_off);
        }
    }
}

/// Over how long agents spread their return when this gateway is lost: the others must open their tunnels.
pub(crate) fn return_spread(fleet: &Fleet, open: usize) -> Duration {
    let others = fleet.count_siblings().max(1);
    Duration::from_secs_f64(open as f64 / (OPENINGS_PER_SECOND * others as f64))
}

/// Keeps true what agents are told of the other gateways: how many there are, so that an agent has tunnels to different
/// ones, and where they are, for the stop of this one.
pub(crate) async fn tell_siblings(fleet: Fleet, handler: TunnelServiceHandler) {
    let mut told = Vec::new();
    loop {
        let siblings = fleet.siblings();
        handler.set_instance(fleet.name(), siblings.len() + 1);
        let addresses: Vec<Uri> = siblings
            .iter()
            .flat_map(|gateway| &gateway.record.public)
            .filter_map(|url| url.parse().ok())
            .collect();
        if addresses != told {
            handler.set_siblings(addresses.clone());
            told = addresses;
        }
        tokio::time::sleep(RECORD_EVERY).await;
    }
}

/// Keeps the metrics of the fleet true.
pub(crate) async fn record(fleet: Fleet) {
    loop {
        let stats = fleet.stats();
        for (name, value) in [
            ("tunnel_fleet_hops_total", stats.hops),
            ("tunnel_fleet_hops_served_total", stats.hops_served),
            ("tunnel_fleet_stale_routes_total", stats.absent),
            ("tunnel_fleet_asked_total", stats.asked),
            ("tunnel_fleet_publishes_total", stats.published),
            (
                "tunnel_fleet_publish_failures_total",
                stats.publish_failures,
            ),
            ("tunnel_fleet_joins_total", stats.joined),
            ("tunnel_fleet_sweeps_total", stats.swept),
            ("tunnel_fleet_flaps_total", stats.flaps),
        ] {
            metrics::counter!(name).absolute(value);
        }
        let gateways = fleet.gateways();
        let live = gateways.iter().filter(|gateway| !gateway.lapsed).count();
        for (name, value) in [
            ("tunnel_fleet_stale", f64::from(u8::from(stats.stale))),
            ("tunnel_fleet_unpublished_keys", stats.unpublished as f64),
            ("tunnel_fleet_gateways", live as f64),
            ("tunnel_fleet_peers_reached", fleet.peers().len() as f64),
            ("tunnel_fleet_keys", stats.keys as f64),
        ] {
            metrics::gauge!(name).set(value);
        }
        tokio::time::sleep(RECORD_EVERY).await;
    }
}
