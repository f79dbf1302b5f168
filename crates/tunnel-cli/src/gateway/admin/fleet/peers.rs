//! The other gateways of the fleet, as this one asks them: each has a second to answer.
//!
//! A gateway serves its own [`AdminService`](crate::gateway::admin::AdminService) to the others, over their hops. That
//! service asks nobody else, so no request goes round. The name of the operator travels with each request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use tonic::metadata::{Binary, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};
use tunnel_fleet::Fleet;
use tunnel_server::TunnelChannel;

use crate::admin::api::admin_client::AdminClient;
use crate::identity::{Identity, Proof};

/// How long another gateway may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// The largest answer.
const MAX_RESPONSE: usize = 64 << 20;

/// The metadata with the operator for whom another gateway asks.
const OPERATOR: &str = "tunnel-operator-bin";

/// A client of the admin API of another gateway.
pub(super) type Client = AdminClient<InterceptedService<TunnelChannel, ForOperator>>;

/// Adds the name of the operator to each request.
#[derive(Clone)]
pub(super) struct ForOperator(MetadataValue<Binary>);

impl Interceptor for ForOperator {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert_bin(OPERATOR, self.0.clone());
        Ok(request)
    }
}

/// A client for requests of an operator of this gateway.
pub(super) fn client(fleet: &Fleet, tunnel: TunnelChannel, operator: &str) -> Client {
    let operator = format!("{operator} (through {})", fleet.name());
    let operator = ForOperator(MetadataValue::from_bytes(operator.as_bytes()));
    AdminClient::with_interceptor(tunnel, operator).max_decoding_message_size(MAX_RESPONSE)
}

/// Takes over the name of the operator from another gateway, which has found it out.
pub(crate) fn from_peer(mut request: Request<()>) -> Result<Request<()>, Status> {
    let operator = request.metadata().get_bin(OPERATOR);
    let operator = operator.and_then(|name| name.to_bytes().ok());
    let name = operator.map_or_else(
        || "another gateway".to_owned(),
        |name| String::from_utf8_lossy(&name).into_owned(),
    );
    request.extensions_mut().insert(Identity {
        name: name.into(),
        proof: Proof::Claimed,
    });
    Ok(request)
}

/// What the other gateways have answered.
pub(super) struct Answers<T> {
    /// By the name of the gateway.
    pub(super) answers: Vec<(Arc<str>, T)>,
    /// The names of those that have not.
    pub(super) unreachable: BTreeSet<String>,
}

/// Asks all other gateways at once, apart from those that have been silent for that long already.
pub(super) async fn ask<T, F>(
    fleet: &Fleet,
    operator: &str,
    call: impl Fn(Client) -> F,
) -> Answers<T>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let asked = reachable(fleet).into_iter().map(|(name, tunnel)| {
        let answer = timeout(PATIENCE, call(client(fleet, tunnel, operator)));
        async move { (name, answer.await) }
    });
    let mut unreachable: BTreeSet<_> = silent(fleet)
        .into_iter()
        .map(|name| name.to_string())
        .collect();
    let mut answers = Vec::new();
    for (gateway, answer) in join_all(asked).await {
        match answer {
            Ok(Ok(answer)) => answers.push((gateway, answer.into_inner())),
            Ok(Err(status)) => {
                tracing::debug!(gateway = &*gateway, %status, "a gateway has not answered");
                unreachable.insert(gateway.to_string());
            }
            Err(_) => {
                unreachable.insert(gateway.to_string());
            }
        }
    }
    Answers {
        answers,
        unreachable,
    }
}

/// The gateways that answer: name, and a tunnel to each. The ends of a hop say twice a second that they live.
pub(super) fn reachable(fleet: &Fleet) -> Vec<(Arc<str>, TunnelChannel)> {
    let mut peers = fleet.peers();
    peers.retain(|(_, tunnel)| {
        let silence = tunnel.silent_for();
        silence.is_none_or(|silence| silence < PATIENCE)
    });
    peers
}

/// The names of the other gateways that do not answer: those in the directory, and those to which a tunnel is still open.
pub(super) fn silent(fleet: &Fleet) -> BTreeSet<Arc<str>> {
    let live = fleet.gateways().into_iter();
    let live = live.filter(|gateway| !gateway.lapsed && *gateway.name != *fleet.name());
    let mut silent: BTreeSet<_> = live.map(|gateway| gateway.name).collect();
    silent.extend(fleet.peers().into_iter().map(|(name, _)| name));
    for (name, _) in reachable(fleet) {
        silent.remove(&name);
    }
    silent
}
