//! What the buttons do: the requests of the admin API.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Request, Status};

use crate::admin::api;
use crate::admin::api::admin_server::Admin as _;
use crate::gateway::admin::FleetAdmin;
use crate::identity::Identity;

/// A header that no form and no other page can send.
const FROM_SCRIPT: &str = "tunnel-page";

/// Who makes a request.
pub(super) struct Operator {
    identity: Option<Identity>,
    connection: Option<TcpConnectInfo>,
}

impl Operator {
    /// The name, if the operator has logged in.
    pub(super) fn name(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| &*identity.name)
    }

    /// A request of the admin API by this operator.
    fn request<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(identity) = self.identity {
            request.extensions_mut().insert(identity);
        }
        if let Some(connection) = self.connection {
            request.extensions_mut().insert(connection);
        }
        request
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let extensions = &head.extensions;
        let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
        let connection = extensions.get().or(tls.map(TlsConnectInfo::get_ref));
        Ok(Self {
            identity: extensions.get().cloned(),
            connection: connection.cloned(),
        })
    }
}

/// What the script sends.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Order {
    key: String,
    reason: String,
    /// For how long to deny, or how long calls in flight may go on.
    seconds: Option<u32>,
}

impl Order {
    fn time(&self) -> Option<prost_types::Duration> {
        self.seconds.map(|seconds| prost_types::Duration {
            seconds: seconds.into(),
            nanos: 0,
        })
    }
}

/// Does what a button says, and answers with a sentence for the operator.
pub(super) async fn act(
    State(admin): State<Arc<FleetAdmin>>,
    Path(action): Path<String>,
    operator: Operator,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !headers.contains_key(FROM_SCRIPT) {
        return (StatusCode::FORBIDDEN, "only the page itself may do this").into_response();
    }
    let Ok(order) = serde_json::from_slice(&body) else {
        return (StatusCode::BAD_REQUEST, "the order is illegal").into_response();
    };
    match obey(&admin, &action, operator, order).await {
        Ok(done) => done.into_response(),
        Err(status) => {
            let code = match status.code() {
                Code::InvalidArgument => StatusCode::BAD_REQUEST,
                Code::Unimplemented => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (code, status.message().to_owned()).into_response()
        }
    }
}

fn tunnels(number: u64) -> String {
    match number {
        0 => "it had no tunnel".to_owned(),
        1 => "1 tunnel has ended".to_owned(),
        number => format!("{number} tunnels have ended"),
    }
}

/// A sentence about gateways that have not answered.
fn names(what: &str, gateways: &[String]) -> String {
    match gateways.is_empty() {
        true => String::new(),
        false => format!(" {what}: {}.", gateways.join(", ")),
    }
}

async fn obey(
    admin: &Arc<FleetAdmin>,
    action: &str,
    operator: Operator,
    order: Order,
) -> Result<String, Status> {
    let time = order.time();
    let Order { key, reason, .. } = order;
    let name = key.clone();
    match action {
        "kick" => {
            let request = operator.request(api::KickRequest { key, reason });
            let kicked = admin.kick(request).await?.into_inner();
            let silent = names("Not reached", &kicked.unreachable);
            Ok(format!(
                "Kicked {name}: {}.{silent}",
                tunnels(kicked.tunnels)
            ))
        }
        "deny" => {
            let request = operator.request(api::DenyRequest {
                key,
                reason,
                duration: time,
            });
            let denied = admin.deny(request).await?.into_inner();
            let silent = names("Not confirmed", &denied.unconfirmed);
            let ended = match denied.gateway.as_str() {
                "" => tunnels(denied.tunnels),
                gateway => format!("{} at {gateway}", tunnels(denied.tunnels)),
            };
            Ok(format!("Denied {name}: {ended}.{silent}"))
        }
        "allow" => {
            let request = operator.request(api::AllowRequest { key });
            let allowed = admin.allow(request).await?.into_inner();
            let silent = names("Not confirmed", &allowed.unconfirmed);
            match allowed.was_denied {
                true => Ok(format!("Allowed {name}.{silent}")),
                false => Ok(format!("{name} was not denied.{silent}")),
            }
        }
        "drain" => {
            let (admin, check) = (admin.clone(), false);
            let request = operator.request(api::DrainRequest {
                timeout: time,
                check,
            });
            // The first poll begins the drain. The rest waits for its end.
            let mut drained = Box::pin(async move { admin.drain(request).await });
            if futures::poll!(&mut drained).is_pending() {
                tokio::spawn(drained);
            }
            Ok("The gateway drains.".to_owned())
        }
        _ => Err(Status::unimplemented("the page has no such button")),
    }
}
