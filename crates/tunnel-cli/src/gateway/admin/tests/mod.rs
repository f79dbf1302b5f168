//! A gateway with devices on loopback.

mod commands;
mod fleet;
mod service;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tunnel_client::{Backoff, LinksHandle, ReverseTunnelServer};
use tunnel_fleet::directory::MemoryDirectory;
use tunnel_fleet::{Fleet, FleetBuilder};
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, server_for_tunnels};

use super::{AdminParts, AdminService, Drain, FleetAdmin};
use crate::admin::api;
use crate::admin::api::admin_client::AdminClient;
use crate::admin::api::admin_server::AdminServer;
use crate::admin::api::watch_event::Event;
use crate::gateway::deny::DenyList;
use crate::gateway::presence::Presence;

/// A gateway, and a client of its admin API.
struct Gateway {
    handler: TunnelServiceHandler,
    presence: Arc<Presence>,
    endpoint: Endpoint,
    fleet: Fleet,
    service: Arc<FleetAdmin>,
    admin: AdminClient<AdminServer<FleetAdmin>>,
}

impl Gateway {
    /// A gateway that is alone.
    async fn start() -> Self {
        Self::start_with(Fleet::builder("alone"), None).await
    }

    /// A gateway in the fleet of a directory.
    async fn start_in(directory: &MemoryDirectory, name: &str) -> Self {
        let hops = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = hops.local_addr().expect("bound");
        let fleet = Fleet::builder(name).directory(directory.clone());
        let fleet = fleet.advertise(format!("http://{address}")).zone("north");
        Self::start_with(fleet, Some(hops)).await
    }

    async fn start_with(fleet: FleetBuilder, hops: Option<TcpListener>) -> Self {
        let fleet = fleet.build();
        let presence = Arc::new(Presence::default());
        let deny = Arc::new(DenyList::default());
        let (opened, closed, admit) = (presence.clone(), presence.clone(), deny.clone());
        let key = |opening: &Opening| opening.metadata_str("tunnel-key").map(AffinityKey::from);
        let handler = TunnelServiceHandler::builder()
            .affinity_key(key)
            .admit(move |opening| {
                let key = opening.key().map_or("", AffinityKey::as_str);
                std::future::ready(admit.check(key))
            })
            .on_open(move |tunnel| opened.opened(tunnel))
            .on_close(move |info, reason, stats| closed.closed(info, reason, stats));
        let handler = fleet.watch_tunnels(handler).build();
        let (events, follow) = (handler.events(), presence.clone());
        tokio::spawn(async move { follow.follow(events).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = server_for_tunnels(Server::builder()).add_service(handler.service());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let (drain, draining) = (Drain::default(), handler.clone());
        let (ready, is_ready) = watch::channel(true);
        let run = drain.clone();
        let leaving = fleet.clone();
        tokio::spawn(async move { run.run(&draining, &leaving, &ready, Duration::ZERO).await });
        let local = Arc::new(AdminService::new(AdminParts {
            handler: handler.clone(),
            fleet: fleet.clone(),
            zone: "north".to_owned(),
            presence: presence.clone(),
            deny,
            taps: Arc::default(),
            ready: is_ready,
            drain,
            started_at: SystemTime::now(),
            memory_budget: 1 << 20,
        }));
        if let Some(hops) = hops {
            let service = crate::gateway::fleet::hop_service(&fleet, local.clone());
            let server = server_for_tunnels(Server::builder()).add_service(service);
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(hops)));
        }
        fleet.join(&handler).await.expect("joined");
        let service = Arc::new(FleetAdmin::new(local));
        Self {
            handler,
            presence,
            endpoint: Endpoint::from_shared(format!("http://{address}")).expect("legal"),
            admin: AdminClient::new(AdminServer::from_arc(service.clone())),
            service,
            fleet,
        }
    }

    /// A device that keeps a tunnel up.
    fn device(&self, key: &str) -> LinksHandle {
        let mut metadata = MetadataMap::new();
        metadata.insert("tunnel-key", key.parse().expect("legal"));
        metadata.insert("tunnel-label-site", "north".parse().expect("legal"));
        metadata.insert("secret", "hidden".parse().expect("legal"));
        let (_, health) = tonic_health::server::health_reporter();
        let soon = Duration::from_millis(1);
        let server = ReverseTunnelServer::builder(self.endpoint.clone())
            .metadata(metadata)
            .backoff(Backoff::default().initial(soon).cap(soon).refused_cap(soon))
            .add_service(health)
            .build();
        let handle = server.handle();
        tokio::spawn(server.run());
        handle
    }

    async fn watch(&mut self, filter: &str) -> Events {
        let request = api::WatchRequest {
            filter: filter.to_owned(),
        };
        Events(
            self.admin
                .watch(request)
                .await
                .expect("watched")
                .into_inner(),
        )
    }

    /// Starts devices and waits until they are connected.
    async fn devices(&mut self, keys: &[String]) -> Vec<LinksHandle> {
        let mut events = self.watch("").await;
        let devices = keys.iter().map(|key| self.device(key)).collect();
        for _ in keys {
            events
                .until(|event| matches!(event, Event::Opened(_)))
                .await;
        }
        devices
    }

    async fn list(&mut self, request: api::ListRequest) -> (Vec<String>, String) {
        let page = self.admin.list(request).await.expect("legal").into_inner();
        let keys = page.devices.into_iter().map(|device| device.key);
        (keys.collect(), page.next_page_token)
    }

    async fn stats(&mut self) -> api::StatsResponse {
        self.admin
            .stats(api::StatsRequest {})
            .await
            .expect("legal")
            .into_inner()
    }
}

struct Events(Streaming<api::WatchEvent>);

impl Events {
    async fn next(&mut self) -> Option<api::WatchEvent> {
        let next = tokio::time::timeout(Duration::from_secs(10), self.0.message());
        next.await.expect("an event in time").expect("no error")
    }

    /// The next event of a kind.
    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> (String, Event) {
        loop {
            let event = self.next().await.expect("an event");
            let what = event.event.expect("a known event");
            if wanted(&what) {
                return (event.key, what);
            }
        }
    }
}
