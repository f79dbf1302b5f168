//! gRPC's own cases: grpc-go's interop client and the channel tests of grpchan, with their servers.
//!
//! Both are Go programs that know nothing of tunnels. Between client and server stands the pair.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use futures::future::FutureExt;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;
use tunnel_conformance::{Offer, Path, TestChannel};

use crate::bridge::Running;
use crate::path::PeerPath;
use crate::plain;
use crate::programs::Programs;

/// The prefix of the names of the interop cases.
const OFFICIAL: &str = "grpc/";

/// The prefix of the names of the channel tests.
const BATTERY: &str = "battery/";

/// The official names of the interop cases.
const OFFICIAL_CASES: &[&str] = &[
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "soak",
];

/// The kinds of call of the channel tests, each with the four outcomes.
const BATTERY_KINDS: &[&str] = &[
    "unary",
    "client-stream",
    "server-stream",
    "half-duplex_bidi-stream",
    "full-duplex_bidi-stream",
];

const BATTERY_OUTCOMES: &[&str] = &["success", "failure", "timeout", "canceled"];

/// The names of all cases.
pub(crate) fn cases() -> impl Iterator<Item = String> {
    let official = OFFICIAL_CASES
        .iter()
        .map(|case| format!("{OFFICIAL}{case}"));
    let battery = BATTERY_KINDS.iter().flat_map(|kind| {
        let outcomes = BATTERY_OUTCOMES.iter();
        outcomes.map(move |outcome| format!("{BATTERY}{kind}/{outcome}"))
    });
    official.chain(battery)
}

/// Whether a name is that of a case of this module.
pub(crate) fn is_case(name: &str) -> bool {
    name.starts_with(OFFICIAL) || name.starts_with(BATTERY)
}

/// Runs a case: client → relay → path → relay → server. The relays turn a channel into an address,
/// and an address into services.
pub(crate) async fn run(case: &str, path: &PeerPath, programs: &Programs) -> Result<()> {
    let log = programs.log("grpc-server");
    let server = Running::start(&mut programs.grpc_cases(), &log)?;
    let host = path
        .host(Offer::new(to_address(server.address(0)).await?))
        .await;
    let channel = host.connect().await;
    let address = plain::serve(to_channel(channel)).await;
    let client = client(case, address, programs);
    let output = tokio::task::spawn_blocking(move || output_of(client)).await??;
    match output {
        None => Ok(()),
        Some(output) => bail!("{output}"),
    }
}

fn client(case: &str, address: SocketAddr, programs: &Programs) -> Command {
    if let Some(case) = case.strip_prefix(OFFICIAL) {
        let mut client = programs.grpc_cases();
        client.args(["--address", &address.to_string(), "--case", case]);
        return client;
    }
    let case = case.trim_start_matches(BATTERY).replace('/', "$/^");
    let mut client = programs.battery();
    client.env("BATTERY_ADDRESS", address.to_string());
    client.args(["-test.timeout", "30s", "-test.run"]);
    client.arg(format!("^TestBattery$/^{case}$"));
    client
}

/// Runs a program, and returns its output if it failed.
fn output_of(mut client: Command) -> Result<Option<String>> {
    let output = client.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {client:?}"))?;
    if output.status.success() {
        return Ok(None);
    }
    let said = [output.stdout, output.stderr].concat();
    Ok(Some(String::from_utf8_lossy(&said).into_owned()))
}

/// Services that pass all calls on to an address.
async fn to_address(address: SocketAddr) -> Result<Routes> {
    let channel = plain::endpoint(address).connect().await?;
    Ok(to_channel(TestChannel::new(channel)).into())
}

/// Passes all calls on to a channel.
fn to_channel(channel: TestChannel) -> axum::Router {
    let forward = tower::service_fn(move |request: http::Request<axum::body::Body>| {
        let call = channel.clone().oneshot(request.map(Body::new));
        call.map(|ended| {
            let failed = |error| Status::from_error(error).into_http();
            Ok::<_, Infallible>(ended.unwrap_or_else(failed))
        })
    });
    axum::Router::new().fallback_service(forward)
}
