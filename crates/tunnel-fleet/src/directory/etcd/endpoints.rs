//! The connection to one of etcd's members.
//!
//! All calls and watches share it. The first to find it broken moves on to the next endpoint, for all.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use super::failure;
use crate::directory::DirectoryError;

/// The endpoints, and the connection to one of them.
#[derive(Debug)]
pub(super) struct Endpoints {
    endpoints: Vec<Endpoint>,
    connect_limit: Duration,
    /// Held by the task that connects. The others wait for its connection.
    connecting: tokio::sync::Mutex<()>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    /// The endpoint in use, or to be tried next.
    at: usize,
    /// The number of the last connection.
    number: u64,
    connection: Option<Connection>,
}

/// A connection to an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    number: u64,
}

impl Endpoints {
    /// Begins with any of the endpoints, so that the gateways of a fleet spread over them.
    pub(super) fn new(endpoints: Vec<Endpoint>, connect_limit: Duration) -> Self {
        let current = Current {
            at: fastrand::usize(..endpoints.len()),
            number: 0,
            connection: None,
        };
        Self {
            endpoints,
            connect_limit,
            connecting: tokio::sync::Mutex::default(),
            current: Mutex::new(current),
        }
    }

    /// The number of endpoints.
    pub(super) fn count(&self) -> usize {
        self.endpoints.len()
    }

    /// The connection. If there is none, the endpoints are tried in turn, each once.
    pub(super) async fn connection(&self) -> Result<Connection, DirectoryError> {
        if let Some(connection) = &self.lock().connection {
            return Ok(connection.clone());
        }
        let _turn = self.connecting.lock().await;
        let mut error = DirectoryError::Unavailable("it has no endpoint".into());
        for _ in 0..self.endpoints.len() {
            let at = {
                let current = self.lock();
                if let Some(connection) = &current.connection {
                    return Ok(connection.clone());
                }
                current.at
            };
            let endpoint = &self.endpoints[at];
            let text = match timeout(self.connect_limit, endpoint.connect()).await {
                Ok(Ok(channel)) => return Ok(self.keep(channel)),
                Ok(Err(error)) => failure::text(&error),
                Err(_) => format!("not connected within {:?}", self.connect_limit),
            };
            error = failure::connection_error(format!("{}: {text}", endpoint.uri()));
            self.advance(&mut self.lock());
        }
        Err(error)
    }

    /// Leaves a connection that has failed. The next one is to the next endpoint.
    pub(super) fn failed(&self, connection: &Connection) {
        let mut current = self.lock();
        let failed = current.connection.as_ref();
        // Else somebody else has moved on already.
        if failed.is_some_and(|failed| failed.number == connection.number) {
            current.connection = None;
            self.advance(&mut current);
        }
    }

    fn keep(&self, channel: Channel) -> Connection {
        let mut current = self.lock();
        current.number += 1;
        let number = current.number;
        let connection = Connection { channel, number };
        current.connection = Some(connection.clone());
        connection
    }

    fn advance(&self, current: &mut Current) {
        current.at = (current.at + 1) % self.endpoints.len();
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
