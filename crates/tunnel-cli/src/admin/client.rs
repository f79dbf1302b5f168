//! The connection to the admin API.

use std::time::Duration;

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use tunnel_server::Report;

use super::api::admin_client::AdminClient;
use crate::connect::Credentials;

/// The largest response: a page of devices, or all denials.
const MAX_RESPONSE: usize = 64 << 20;

/// A gateway that has vanished is noticed after twice this time.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Where the admin API answers.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AdminArgs {
    /// The gateway's address for operators: HOST:PORT, or a URL.
    #[arg(
        long,
        env = "TUNNEL_ADMIN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7002"
    )]
    admin: String,
    /// The certificates (PEM) that the gateway's certificate must lead to. Turns TLS on.
    #[arg(long, env = "TUNNEL_ADMIN_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name in the gateway's certificate, if it is not that of the address.
    #[arg(long, env = "TUNNEL_ADMIN_SERVER_NAME", value_name = "NAME")]
    server_name: Option<String>,
    /// A file with the token of an operator.
    #[arg(long, env = "TUNNEL_ADMIN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A client of the admin API.
pub(super) type Client = AdminClient<InterceptedService<Channel, Token>>;

impl AdminArgs {
    /// A client that is connected.
    pub(super) async fn client(&self) -> Result<Client> {
        let credentials = Credentials {
            ca: self.ca.clone(),
            server_name: self.server_name.clone(),
            token_file: self.token_file.clone(),
            ..Credentials::default()
        };
        let endpoint = credentials.endpoint(&self.admin)?;
        let endpoint = endpoint
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        let token = Token(credentials.authorization()?);
        let channel = endpoint.connect().await.map_err(|error| {
            anyhow!(
                "cannot reach the admin API at {}: {}",
                self.admin,
                Report(&error)
            )
        })?;
        let client = AdminClient::with_interceptor(channel, token);
        Ok(client.max_decoding_message_size(MAX_RESPONSE))
    }
}

/// Adds the token to each request.
#[derive(Clone, Debug)]
pub(super) struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// The error of a call, for people.
pub(super) fn failed(status: Status) -> anyhow::Error {
    let message = super::human::clean(status.message());
    match status.code() {
        Code::InvalidArgument => anyhow!(message),
        Code::Unimplemented => anyhow!("there is no admin API at this address: {message}"),
        Code::Unauthenticated | Code::PermissionDenied => {
            anyhow!("the gateway refuses: {message}")
        }
        // tonic's code for a connection that breaks.
        Code::Unknown => anyhow!("the connection to the gateway is lost"),
        Code::Unavailable => anyhow!("the connection to the gateway is lost: {message}"),
        code => anyhow!("{code}: {message}"),
    }
}
