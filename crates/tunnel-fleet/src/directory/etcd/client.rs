//! Calls to etcd: an endpoint that works, a valid token, a time limit.

use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::{Request, Status};

use super::endpoints::{Connection, Endpoints};
use super::failure::{self, Failure};
use super::proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};
use crate::directory::DirectoryError;

/// Calls etcd.
#[derive(Debug)]
pub(super) struct Client {
    endpoints: Endpoints,
    credentials: Option<Credentials>,
    token: Mutex<Token>,
    limit: Duration,
}

/// A user and its password.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The token that etcd gave for user and password.
#[derive(Debug, Default)]
struct Token {
    /// Counts the tokens, so that only the newest is given up.
    number: u64,
    state: TokenState,
}

#[derive(Clone, Debug, Default)]
enum TokenState {
    /// To be asked for.
    #[default]
    Missing,
    /// etcd has no users.
    NotNeeded,
    Present(AsciiMetadataValue),
}

/// Whether a request may be sent again when its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Allowed,
    /// Only if it was certainly not carried out.
    Forbidden,
}

impl Client {
    /// `limit` bounds each call, with everything that it needs.
    pub(super) fn new(
        endpoints: Endpoints,
        credentials: Option<Credentials>,
        limit: Duration,
    ) -> Self {
        Self {
            endpoints,
            credentials,
            token: Mutex::default(),
            limit,
        }
    }

    /// Sends a request by `send`, at most once to each endpoint, and once more with a new token.
    pub(super) async fn call<Q, A, F>(
        &self,
        repeat: Repeat,
        request: Q,
        send: impl Fn(Connection, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<A, Status>>,
    {
        let deadline = Instant::now() + self.limit;
        // The only endpoint gets a second connection: the first may have been cut by something between.
        let mut attempts = self.endpoints.count().max(2);
        let mut renewed = self.credentials.is_none();
        loop {
            let connection = timeout_at(deadline, self.endpoints.connection()).await;
            let connection = connection.map_err(|_| self.timed_out())??;
            let mut token_number = 0;
            let attempt = async {
                let mut request = Request::new(request.clone());
                // A member without a leader answers that at once.
                let metadata = request.metadata_mut();
                metadata.insert("hasleader", MetadataValue::from_static("true"));
                let (number, token) = self.token(&connection).await?;
                token_number = number;
                if let Some(token) = token {
                    metadata.insert("token", token);
                }
                send(connection.clone(), request).await
            };
            let status = match timeout_at(deadline, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => {
                    self.endpoints.failed(&connection);
                    return Err(self.timed_out().into());
                }
            };
            if !renewed && failure::is_about_token(&status) {
                renewed = true;
                self.forget_token(token_number).await;
                continue;
            }
            if failure::is_of_endpoint(&status) {
                self.endpoints.failed(&connection);
                attempts -= 1;
                let may_repeat = repeat == Repeat::Allowed || failure::is_unsent(&status);
                if may_repeat && attempts > 0 {
                    continue;
                }
            }
            return Err(status.into());
        }
    }

    /// Leaves a connection on which a watch has ended.
    pub(super) fn failed(&self, connection: &Connection) {
        self.endpoints.failed(connection);
    }

    fn timed_out(&self) -> DirectoryError {
        DirectoryError::Unavailable(format!("no answer within {:?}", self.limit))
    }

    /// The token to send, if any, with its number. One task at a time asks for it: checking a password is slow.
    async fn token(
        &self,
        connection: &Connection,
    ) -> Result<(u64, Option<AsciiMetadataValue>), Status> {
        let Some(credentials) = &self.credentials else {
            return Ok((0, None));
        };
        let mut token = self.token.lock().await;
        if matches!(token.state, TokenState::Missing) {
            token.state = authenticate(connection, credentials).await?;
            token.number += 1;
        }
        let value = match &token.state {
            TokenState::Present(value) => Some(value.clone()),
            TokenState::Missing | TokenState::NotNeeded => None,
        };
        Ok((token.number, value))
    }

    async fn forget_token(&self, number: u64) {
        let mut token = self.token.lock().await;
        if token.number == number {
            token.state = TokenState::Missing;
        }
    }
}

async fn authenticate(
    connection: &Connection,
    credentials: &Credentials,
) -> Result<TokenState, Status> {
    let request = AuthenticateRequest {
        name: credentials.user.clone(),
        password: credentials.password.clone(),
    };
    let mut client = AuthClient::new(connection.channel.clone());
    match client.authenticate(request).await {
        Ok(answer) => {
            let token = answer.into_inner().token.parse();
            let unfit = |_| Status::internal("the token cannot be sent back");
            let mut token: AsciiMetadataValue = token.map_err(unfit)?;
            // Then it is not shown.
            token.set_sensitive(true);
            Ok(TokenState::Present(token))
        }
        Err(status) if failure::is_without_users(&status) => Ok(TokenState::NotNeeded),
        Err(status) => Err(status),
    }
}
