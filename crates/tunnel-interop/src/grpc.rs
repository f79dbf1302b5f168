//! gRPC's own cases: grpc-go's interop client and the channel tests of grpchan, with their servers.
//!
//! Both are Go programs that know nothing of tunnels. Between client and server stands the pair, or the program
//! `tunnel` alone, whose gateway the client calls by the key's authority.

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
use crate::matrix::Direction;
use crate::path::PeerPath;
use crate::plain;
use crate::programs::Programs;
use crate::tunnel::{AUTHORITY, Tunnel};

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

/// The prefix of the names of grpcurl's cases.
const GRPCURL: &str = "grpcurl/";

/// What grpcurl does through the program `tunnel`, and what it then prints.
const GRPCURL_CASES: &[(&str, &[&str], &str)] = &[
    ("list", &["list"], "grpc.testing.TestService"),
    (
        "describe",
        &["describe", "grpc.testing.TestService"],
        "rpc EmptyCall ( .grpc.testing.Empty ) returns ( .grpc.testing.Empty );",
    ),
    (
        "call",
        &["grpc.testing.TestService/UnaryCall"],
        r#""username": """#,
    ),
];

/// The ways to name the key.
const NAMINGS: &[(&str, &[&str])] = &[
    ("metadata", &["-H", "tunnel-key: device"]),
    ("authority", &["-authority", AUTHORITY]),
];

/// The names of grpcurl's cases.
pub(crate) fn grpcurl_cases() -> impl Iterator<Item = String> {
    GRPCURL_CASES.iter().flat_map(|(case, ..)| {
        NAMINGS
            .iter()
            .map(move |(naming, _)| format!("{GRPCURL}{case}/by_{naming}"))
    })
}

/// Runs a case of grpcurl.
async fn grpcurl(case: &str, gateway: SocketAddr, programs: &Programs) -> Result<()> {
    let known = GRPCURL_CASES
        .iter()
        .flat_map(|case| NAMINGS.iter().map(move |naming| (case, naming)));
    let found =
        known.filter(|((name, ..), (naming, _))| case == format!("{GRPCURL}{name}/by_{naming}"));
    for ((_, arguments, wanted), (_, naming)) in found {
        let mut command = programs.grpcurl();
        command
            .arg("-plaintext")
            .args(*naming)
            .args(["-d", r#"{"fill_username": true}"#]);
        command
            .args(["-emit-defaults", &gateway.to_string()])
            .args(*arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await?;
        let output = output.context("cannot start grpcurl")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if !output.status.success() || !said.contains(wanted) {
            bail!("no {wanted:?} in: {said}");
        }
    }
    Ok(())
}

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
    [OFFICIAL, BATTERY, GRPCURL]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Runs a case: client → relay → path → relay → server. The relays turn a channel into an address,
/// and an address into services.
pub(crate) async fn run(case: &str, path: &PeerPath, programs: &Programs) -> Result<()> {
    let log = programs.log("grpc-server");
    let server = Running::start(&mut programs.grpc_cases(), &log)?;
    if path.pair.direction == Direction::Program {
        let tunnel = Tunnel::start(&programs.tunnel(), server.address(0)).await?;
        if case.starts_with(GRPCURL) {
            return grpcurl(case, tunnel.clients(), programs).await;
        }
        return call(client(case, tunnel.clients(), Some(AUTHORITY), programs)).await;
    }
    let host = path
        .host(Offer::new(to_address(server.address(0)).await?))
        .await;
    let channel = host.connect().await;
    let address = plain::serve(to_channel(channel)).await;
    call(client(case, address, None, programs)).await
}

/// Runs a client to its end.
async fn call(client: Command) -> Result<()> {
    let output = tokio::task::spawn_blocking(move || output_of(client)).await??;
    match output {
        None => Ok(()),
        Some(output) => bail!("{output}"),
    }
}

fn client(
    case: &str,
    address: SocketAddr,
    authority: Option<&str>,
    programs: &Programs,
) -> Command {
    if let Some(case) = case.strip_prefix(OFFICIAL) {
        let mut client = programs.grpc_cases();
        client.args(["--address", &address.to_string(), "--case", case]);
        client.args(["--authority", authority.unwrap_or_default()]);
        return client;
    }
    let case = case.trim_start_matches(BATTERY).replace('/', "$/^");
    let mut client = programs.battery();
    client.env("BATTERY_ADDRESS", address.to_string());
    client.env("BATTERY_AUTHORITY", authority.unwrap_or_default());
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
