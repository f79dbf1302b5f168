//! Session affinity: a stateful service behind a balancer that sends each call to the next backend.
//!
//! Plain calls lose their session at the second call. A tunnel is a single call to the balancer, so all the
//! calls in it stay with the backend that has accepted it, and the service needs no shared store.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use cookbook::test::session_service_client::SessionServiceClient;
use cookbook::test::session_service_server::{SessionService, SessionServiceServer};
use cookbook::test::{GetUserRequest, LoginRequest, LoginResponse, User};
use example_support::serve::on_loopback;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tower::{ServiceExt as _, service_fn};
use tunnel_client::{ForwardTunnel, endpoint_for_tunnels};
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// How many sessions each client has.
const SESSIONS: usize = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let backends = [start_backend("A").await?, start_backend("B").await?];
    let channel = start_balancer(backends).await?;

    let (held, _) = try_sessions("plain calls", channel.clone()).await?;
    ensure!(held == 0, "plain calls broke no session");
    let mut backends = Vec::new();
    for name in ["the first tunnel", "the second tunnel"] {
        let tunnel = ForwardTunnel::new(channel.clone()).open().await?;
        let (held, backend) = try_sessions(name, tunnel).await?;
        ensure!(held == SESSIONS, "a tunnel broke a session");
        backends.push(backend);
    }
    ensure!(backends[0] != backends[1], "the balancer does not balance");
    println!("✓ Plain calls broke the sessions, tunnels held them");
    Ok(())
}

/// Begins sessions and reads them. Returns how many were still known, and the last backend that knew one.
async fn try_sessions<T>(name: &str, channel: T) -> Result<(usize, Option<String>)>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut client = SessionServiceClient::new(channel);
    let (mut held, mut backend) = (0, None);
    for n in 1..=SESSIONS {
        let user = format!("user {n}");
        let session = client
            .login(LoginRequest { user })
            .await?
            .into_inner()
            .session;
        match client.get_user(GetUserRequest { session }).await {
            Ok(user) => {
                held += 1;
                backend = Some(user.into_inner().backend);
            }
            Err(status) if status.code() == Code::NotFound => {
                if n == 1 {
                    println!("{name}: {}", status.message());
                }
            }
            Err(status) => return Err(status.into()),
        }
    }
    let answered = backend.as_deref().unwrap_or("none");
    println!("{name}: {held} of {SESSIONS} sessions held, by backend {answered}");
    Ok((held, backend))
}

/// Starts a backend, which is reached directly and through tunnels, and returns a channel to it.
async fn start_backend(name: &'static str) -> Result<Channel> {
    let sessions = SessionServiceServer::new(Sessions {
        backend: name,
        known: Arc::default(),
    });
    let handler = TunnelServiceHandler::builder()
        .add_service(sessions.clone())
        .build();
    let server = server_for_tunnels(Server::builder())
        .add_service(handler.service())
        .add_service(sessions);
    connect(server).await
}

/// Starts a balancer that knows nothing of tunnels, as those of HTTP/2 do not.
async fn start_balancer(backends: [Channel; 2]) -> Result<Channel> {
    let turns = AtomicUsize::new(0);
    let next = Arc::new(move || backends[turns.fetch_add(1, Ordering::Relaxed) % 2].clone());
    let balancer = service_fn(move |call: http::Request<_>| {
        let answer = next().oneshot(call.map(Body::new));
        async move {
            let failed =
                |error: tonic::transport::Error| Status::from_error(error.into()).into_http();
            Ok::<_, Infallible>(answer.await.unwrap_or_else(failed))
        }
    });
    let routes = Routes::default()
        .into_axum_router()
        .fallback_service(balancer);
    connect(server_for_tunnels(Server::builder()).add_routes(routes.into())).await
}

async fn connect(server: tonic::transport::server::Router) -> Result<Channel> {
    let address = on_loopback(server).await?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint_for_tunnels(endpoint).connect().await?)
}

/// The sessions of one backend, in its memory. No other backend knows them.
#[derive(Clone)]
struct Sessions {
    backend: &'static str,
    known: Arc<Mutex<HashMap<String, String>>>,
}

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<LoginResponse>, Status> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // A real session id must not be guessable.
        let session = format!("{}-{}", self.backend, known.len() + 1);
        known.insert(session.clone(), request.into_inner().user);
        Ok(Response::new(LoginResponse { session }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let GetUserRequest { session } = request.into_inner();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let backend = self.backend;
        match known.get(&session) {
            Some(name) => Ok(Response::new(User {
                name: name.clone(),
                backend: backend.to_owned(),
            })),
            None => Err(Status::not_found(format!(
                "backend {backend} has no session {session}"
            ))),
        }
    }
}
