//! A backend: a tonic server whose service remembers.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use example_support::address::Address;
use example_support::listen::Listener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tracing::error;
use tunnel_server::{Shutdown, TunnelServiceHandler, server_for_tunnels};

use crate::test::session_service_server::{SessionService, SessionServiceServer};
use crate::test::{
    GetUserDataRequest, LoginRequest, LoginResponse, UpdateProfileRequest, UserData,
};

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    address: Address,
    serving: JoinHandle<()>,
}

impl Backend {
    /// Starts a backend on a free port. Its service can be called directly and
    /// through tunnels, and is the same either way.
    pub(crate) async fn start(name: &str) -> Result<Self> {
        let address: Address = "127.0.0.1:0".parse()?;
        let listener = Listener::bind(&address).await?;
        let address = address.with_port(listener.port());
        let sessions = SessionServiceServer::new(Sessions::new(name));
        let handler = TunnelServiceHandler::builder()
            .add_service(sessions.clone())
            .build();
        let server = server_for_tunnels(Server::builder())
            .add_service(handler.service())
            .add_service(sessions);
        let serving = tokio::spawn(async move {
            // Runs until the task is aborted, which closes all connections.
            let never = Shutdown::on(pending());
            if let Err(error) = handler.serve(server, listener.incoming(), never).await {
                error!("a backend failed: {error}");
            }
        });
        Ok(Self { address, serving })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The sessions of one backend. No other backend knows them.
#[derive(Clone, Debug)]
struct Sessions {
    backend: String,
    known: Arc<Mutex<HashMap<String, User>>>,
}

#[derive(Clone, Debug)]
struct User {
    name: String,
    profile: String,
}

impl Sessions {
    fn new(backend: &str) -> Self {
        Self {
            backend: backend.to_owned(),
            known: Arc::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, User>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a function to the user of a session, and returns the result.
    fn with_user(
        &self,
        session: &str,
        act: impl FnOnce(&mut User),
    ) -> Result<Response<UserData>, Status> {
        let mut known = self.known();
        let user = known.get_mut(session).ok_or_else(|| {
            let message = format!("unknown session {session} at backend {}", self.backend);
            Status::not_found(message)
        })?;
        act(user);
        Ok(Response::new(UserData {
            user: user.name.clone(),
            profile: user.profile.clone(),
            backend: self.backend.clone(),
        }))
    }
}

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<LoginResponse>, Status> {
        let name = request.into_inner().user;
        let mut known = self.known();
        // Easy to follow in a log. A real session id must not be guessable.
        let session = format!("{}-{}", self.backend, known.len() + 1);
        let profile = String::new();
        known.insert(session.clone(), User { name, profile });
        let backend = self.backend.clone();
        Ok(Response::new(LoginResponse { session, backend }))
    }

    async fn get_user_data(
        &self,
        request: Request<GetUserDataRequest>,
    ) -> Result<Response<UserData>, Status> {
        self.with_user(&request.get_ref().session, |_| {})
    }

    async fn update_profile(
        &self,
        request: Request<UpdateProfileRequest>,
    ) -> Result<Response<UserData>, Status> {
        let UpdateProfileRequest { session, profile } = request.into_inner();
        self.with_user(&session, |user| user.profile = profile)
    }
}
