//! A gateway that runs: its files, its listeners, its start and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::HeaderValue;
use tokio::task::{JoinError, JoinSet};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Status};
use tonic_health::pb::health_server::HealthServer;
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};
use tower_layer::Layer;
use tower_service::Service;
use tunnel_fleet::Fleet;
use tunnel_server::{
    Shutdown, TunnelServiceHandler, WhenKeyIsFull, server_for_tunnels, server_for_tunnels_and_calls,
};

use super::admin::{AdminParts, AdminService, Drain, FleetAdmin};
use super::agents;
use super::audit::AuditLog;
use super::edge::{Edge, Gate, Services};
use super::files::{Files, For, bind};
use super::fleet;
use super::health::GatewayHealth;
use super::history::History;
use super::limits::Limits;
use super::ops;
use super::page::{self, PageParts};
use super::presence::Presence;
use super::settings::Settings;
use super::stop::Stop;
use super::tap::Taps;
use crate::admin::api;
use crate::admin::api::admin_server::AdminServer;
use crate::identity::authenticator::Authenticator;
use crate::listen::{Incoming, Listener};
use crate::reload::Reloader;
use crate::systemd;
use crate::tunnels;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How often what is kept for keys that are idle is thrown away.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// The calls in flight of one connection of a client. More wait at the client.
const MAX_CALLS_OF_CONNECTION: u32 = 1000;

fn handler(
    settings: &Settings,
    files: &Files,
    presence: &Arc<Presence>,
    fleet: &Fleet,
) -> Result<TunnelServiceHandler> {
    let (deny, admitted) = (files.deny.clone(), presence.clone());
    let max_of_address = settings.max_tunnels_of_address.unwrap_or(usize::MAX);
    let (opened, closed) = (presence.clone(), presence.clone());
    let mut builder = TunnelServiceHandler::builder()
        .config(tunnels::config()?)
        .affinity_key(agents::key)
        .admit(move |opening| {
            std::future::ready(agents::admit(&opening, &deny, &admitted, max_of_address))
        })
        .on_open(move |tunnel| opened.opened(tunnel))
        .on_close(move |info, reason, stats| closed.closed(info, reason, stats))
        // A device that has changed its network comes back before the loss of its old tunnel is noticed.
        .when_key_is_full(WhenKeyIsFull::CloseOldest);
    if let Some(max) = settings.max_tunnels {
        builder = builder.max_tunnels(max);
    }
    if let Some(max) = settings.max_tunnels_of_key {
        builder = builder.max_tunnels_per_key(max);
    }
    if let Some(max) = settings.max_openings {
        builder = builder.max_openings_at_once(max);
    }
    let others = fleet.clone();
    builder = builder.return_spread(move |open| fleet::return_spread(&others, open));
    if let Some(mib) = settings.memory_budget {
        builder = builder.memory_budget(mib << 20);
    }
    Ok(fleet.watch_tunnels(builder).build())
}

/// The services that answer calls without a key: the health of the gateway, and the reflection of its admin API.
fn own(health: GatewayHealth) -> Result<Routes> {
    own_reflection(Routes::new(HealthServer::new(health)))
}

/// Adds the reflection of the gateway's own services.
fn own_reflection(routes: Routes) -> Result<Routes> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(api::DESCRIPTOR)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = routes.add_service(reflection().build_v1()?);
    Ok(routes.add_service(reflection().build_v1alpha()?))
}

/// What a browser asks before a page may call.
fn cors(origins: &[String]) -> Result<CorsLayer> {
    let allowed = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => {
            let values: Result<Vec<HeaderValue>, _> =
                origins.iter().map(|origin| origin.parse()).collect();
            AllowOrigin::list(values.context("web-origins: not an origin")?)
        }
    };
    let cors = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([http::Method::POST]);
    Ok(cors
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::any()))
}

/// Identifies an operator.
fn operator(
    admins: &Authenticator,
    prove: bool,
    mut request: Request<()>,
) -> Result<Request<()>, Status> {
    if !prove {
        return Ok(request);
    }
    match admins.identify(request.metadata().as_ref(), None)? {
        Some(operator) => {
            request.extensions_mut().insert(operator);
            Ok(request)
        }
        None => Err(Status::unauthenticated(
            "who are you? present a bearer token (--token-file)",
        )),
    }
}

/// Serves a listener until the shutdown.
async fn serve_at<L, B>(
    handler: &TunnelServiceHandler,
    router: Router<L>,
    listener: Listener,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error>
where
    L: Layer<Routes>,
    L::Service: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    <L::Service as Service<http::Request<Body>>>::Future: Send,
    <L::Service as Service<http::Request<Body>>>::Error: Into<BoxError> + Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    match listener.incoming() {
        Incoming::Plain(incoming) => handler.serve(router, incoming, shutdown).await,
        Incoming::Tls(incoming) => handler.serve(router, incoming, shutdown).await,
    }
}

/// Runs a gateway until a signal.
///
/// `reread` reads the settings again. They do not change while the gateway runs, but mistakes are told.
pub(crate) async fn serve(
    settings: Settings,
    reread: impl Fn() -> Result<Settings> + Send + Sync + 'static,
) -> Result<()> {
    let started_at = SystemTime::now();
    // Each tunnel and each client needs a descriptor, and the usual limit is 1,024.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of descriptors stays as it is");
    }
    let (recorder, metrics) = ops::recorder()?;
    metrics::set_global_recorder(recorder).map_err(|error| anyhow::anyhow!("{error}"))?;
    let files = Files::open(&settings)?;
    let presence = Arc::new(Presence::default());
    let mut reloader = Reloader::new();
    let agents_at = bind(&settings, For::Agents, &mut reloader).await?;
    let clients_at = match settings.is_shared() {
        true => {
            println!("clients: listening at {}", agents_at.local_addr());
            None
        }
        false => Some(bind(&settings, For::Clients, &mut reloader).await?),
    };
    let admin_at = bind(&settings, For::Admins, &mut reloader).await?;
    let hops_at = match settings.has_fleet() {
        true => Some(bind(&settings, For::Gateways, &mut reloader).await?),
        false => None,
    };
    let hop_address = hops_at.as_ref().map(Listener::local_addr);
    let fleet = fleet::open(&settings, hop_address, &files.deny, &presence)?;
    let handler = handler(&settings, &files, &presence, &fleet)?;
    let stop = Stop::new(&settings);
    let reloaded = reloader.subscribe();
    files.watch(&mut reloader);
    let running = settings.clone();
    let changed = AtomicBool::new(false);
    reloader.add("settings", move || {
        let differ = reread()? != running;
        if differ != changed.swap(differ, Ordering::Relaxed) {
            match differ {
                true => tracing::warn!("the settings have changed: a restart is needed"),
                false => tracing::info!("the settings are those that the gateway runs with"),
            }
        }
        Ok(false)
    });
    let gate = Arc::new(Gate {
        clients: files.clients.clone(),
        prove: settings.clients_prove() && !settings.insecure_keys,
        access: files.access.clone(),
        may_change: settings.clients_prove() || settings.access.is_some(),
        reloaded: reloaded.clone(),
    });
    let limits = Limits::new(&settings);
    let history = Arc::new(History::new()?);
    let taps = Arc::new(Taps::default());
    let audit = settings
        .audit_log
        .as_deref()
        .map(AuditLog::open)
        .transpose()?;
    let health = GatewayHealth {
        fleet: fleet.clone(),
        gate: gate.clone(),
        ready: stop.ready.subscribe(),
    };
    let edge = Edge::new(
        Services {
            fleet: fleet.clone(),
            rule: files.rule.clone(),
            gate,
            deny: files.deny.clone(),
            presence: presence.clone(),
            limits: limits.clone(),
            history: history.clone(),
            audit: audit.map(Arc::new),
            taps: taps.clone(),
        },
        own(health)?,
    );
    let claims_are_believed = settings.insecure_keys || !settings.agents_prove();
    let agents = files.agents.clone();
    let tunnels = InterceptedService::new(handler.service(), move |request: Request<()>| {
        agents::identify(&agents, claims_are_believed, request)
    });
    let drain = Drain::default();
    let local = Arc::new(AdminService::new(AdminParts {
        handler: handler.clone(),
        fleet: fleet.clone(),
        zone: settings.zone.clone().unwrap_or_default(),
        presence: presence.clone(),
        deny: files.deny.clone(),
        taps,
        ready: stop.ready.subscribe(),
        drain: drain.clone(),
        started_at,
        memory_budget: settings.memory_budget.unwrap_or_default() << 20,
    }));
    let admin = Arc::new(FleetAdmin::new(local.clone()));
    let (admins, prove) = (files.admins.clone(), settings.admin_tokens.is_some());
    let api = AdminServer::from_arc(admin.clone());
    let api = InterceptedService::new(api, move |request: Request<()>| {
        operator(&admins, prove, request)
    });

    let http_at = settings.http_listen.context("http-listen has no address")?;
    let http_at = tokio::net::TcpListener::bind(http_at).await;
    let http_at =
        http_at.with_context(|| format!("http: cannot listen at {:?}", settings.http_listen))?;
    println!("http: listening at {}", http_at.local_addr()?);

    // Ends with this function.
    let mut helpers = JoinSet::new();
    helpers.spawn(systemd::watchdog());
    helpers.spawn(agents::end_revoked(
        handler.clone(),
        files.agents.clone(),
        reloaded,
    ));
    helpers.spawn(ops::upkeep(metrics.clone()));
    if !settings.webhook.is_empty() {
        let sending = files.webhooks.run(presence.clone());
        helpers.spawn(async move {
            if let Err(error) = sending.await {
                tracing::error!("webhooks are not sent: {error:#}");
            }
        });
    }
    helpers.spawn(async move {
        if let Err(error) = reloader.run().await {
            tracing::error!("files are not read again: {error:#}");
        }
    });
    let (following, events) = (presence.clone(), handler.events());
    helpers.spawn(async move { following.follow(events).await });
    helpers.spawn(async move {
        loop {
            tokio::time::sleep(TIDY_INTERVAL).await;
            limits.forget_idle();
        }
    });
    let (draining, ready, notice) = (handler.clone(), stop.ready.clone(), stop.notice);
    let (leaving, asked) = (fleet.clone(), drain.clone());
    helpers.spawn(async move {
        drain.run(&draining, &leaving, &ready, notice).await;
    });
    if let Some(hops_at) = hops_at {
        let for_gateways = fleet::hop_service(&fleet, local);
        helpers.spawn(fleet::serve_hops(for_gateways, hops_at));
        helpers.spawn(fleet::keep_ready(
            fleet.clone(),
            stop.ready.clone(),
            asked,
            stop.began(),
        ));
        helpers.spawn(fleet::record(fleet.clone()));
        helpers.spawn(fleet::tell_siblings(fleet.clone(), handler.clone()));
    }
    let pages = ops::router(metrics, stop.ready.subscribe());
    helpers.spawn(async move {
        if let Err(error) = axum::serve(http_at, pages).await {
            tracing::error!(%error, "http has ended");
        }
    });
    let (sampled, samples) = (presence.clone(), history.clone());
    helpers.spawn(async move { samples.run(&sampled).await });
    let page = PageParts {
        admin,
        presence,
        history,
        admins: prove.then(|| files.admins.clone()),
        address: admin_at.local_addr(),
        tls: admin_at.tls().is_some(),
    };
    let operators = Server::builder()
        .accept_http1(true)
        .add_routes(page::router(page, own_reflection(Routes::new(api))?).into());
    helpers.spawn(async move {
        let served = match admin_at.incoming() {
            Incoming::Plain(incoming) => operators.serve_with_incoming(incoming).await,
            Incoming::Tls(incoming) => operators.serve_with_incoming(incoming).await,
        };
        if let Err(error) = served {
            tracing::error!(%error, "the admin API has ended");
        }
    });

    let cors = cors(&settings.web_origins)?;
    let routes = Routes::new(tunnels);
    let routes = match files.enroll {
        Some(enroll) => routes.add_service(enroll.into_server()),
        None => routes,
    };
    let serving = async {
        let Some(clients_at) = clients_at else {
            let routes = routes.into_axum_router().fallback_service(edge);
            let router = server_for_tunnels_and_calls(Server::builder())
                .accept_http1(true)
                .layer(cors)
                .layer(GrpcWebLayer::new())
                .add_routes(routes.into());
            return serve_at(&handler, router, agents_at, stop.shutdown()).await;
        };
        let for_clients_alone = || async {
            Status::unimplemented(
                "this address is for agents: clients call the one of clients-listen",
            )
            .into_http::<tonic::body::Body>()
        };
        let routes = routes.into_axum_router().fallback(for_clients_alone);
        let for_agents = server_for_tunnels(Server::builder()).add_routes(routes.into());
        let for_clients = server_for_tunnels_and_calls(Server::builder())
            .max_concurrent_streams(Some(MAX_CALLS_OF_CONNECTION))
            .accept_http1(true)
            .layer(cors)
            .layer(GrpcWebLayer::new())
            .add_routes(axum::Router::new().fallback_service(edge).into());
        tokio::try_join!(
            serve_at(&handler, for_agents, agents_at, stop.shutdown()),
            serve_at(&handler, for_clients, clients_at, stop.shutdown()),
        )?;
        Ok(())
    };
    fleet.join(&handler).await?;
    stop.ready.send_replace(true);
    let signals = stop.signals()?;
    systemd::ready("serving");
    let mut began = stop.began();
    let leaving = fleet.clone();
    helpers.spawn(async move {
        // An error means that the gateway is dropped.
        if began.wait_for(|began| *began).await.is_ok() {
            leaving.begin_drain();
        }
    });
    let served = tokio::select! {
        served = serving => Ok(served?),
        () = signals => Ok(()),
        panic = panic_of(&mut helpers) => Err(panic.into()),
    };
    fleet.leave().await;
    served
}

/// Resolves when a task has panicked. Without one of them the gateway would not be what it seems to be: for example it
/// would not see revocations any more.
async fn panic_of(helpers: &mut JoinSet<()>) -> JoinError {
    while let Some(ended) = helpers.join_next().await {
        if let Err(error) = ended {
            return error;
        }
    }
    std::future::pending().await
}
