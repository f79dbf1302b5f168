//! `tunnel call`: calls a server behind a key from the command line, with JSON, as grpcurl does.

mod codec;
mod describe;
mod input;
mod invoke;
mod output;
mod reflection;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use prost_reflect::DescriptorPool;
use tonic::{Code, Status};

use crate::connect::{ConnectArgs, KeyChannel, read};
use describe::{describe, find_method, split_method};
use invoke::{Options, invoke};
use reflection::Reflection;

/// What is added to the code of a status for the exit code, as grpcurl does.
const EXIT_CODES: u8 = 64;

/// Calls a method of the server behind a key, with JSON messages.
///
/// The types come from the server's own reflection service, or from --protoset.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The key of the server.
    key: String,
    /// package.Service/Method; or `list`, or `describe`.
    method: String,
    /// The service to list, or the symbol to describe.
    symbol: Option<String>,
    /// The request as JSON; several, one behind the other, for a stream. @FILE reads a file, and @ the standard input.
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    /// A header of the call. May be repeated. The value of a name that ends with -bin is base64.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Show headers and trailers too.
    #[arg(short, long)]
    verbose: bool,
    /// How long the call may take.
    #[arg(long, value_name = "SECONDS")]
    max_time: Option<f64>,
    /// Show fields that have their default values too.
    #[arg(long)]
    emit_defaults: bool,
    /// A file with the descriptors, from `protoc --include_imports --descriptor_set_out=FILE`. May be repeated.
    #[arg(long, value_name = "FILE")]
    protoset: Vec<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Makes the call. A status other than OK goes to the standard error, and 64 + its code is the exit code.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let channel = args.connect.lazy_key_channel(&args.key)?;
    let mut known = DescriptorPool::new();
    match call(channel, &args, &mut known, &mut std::io::stdout()).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let status = error
                .chain()
                .find_map(|error| error.downcast_ref::<Status>());
            let Some(status) = status else {
                return Err(error);
            };
            eprint!("{}", output::status(status, &known));
            if status.code() == Code::PermissionDenied
                && status.message().contains("ServerReflection")
            {
                eprintln!(
                    "The types come from the server's reflection. Allow it, or give --protoset FILE."
                );
            }
            let code = u8::try_from(i32::from(status.code())).unwrap_or(2);
            Ok(ExitCode::from(EXIT_CODES + code))
        }
    }
}

/// Does what the arguments say, within the time that they give. `known` gets the descriptors.
async fn call(
    channel: KeyChannel,
    args: &Args,
    known: &mut DescriptorPool,
    out: &mut (impl Write + Send),
) -> Result<()> {
    let max_time = args.max_time.map(Duration::try_from_secs_f64).transpose();
    let max_time = max_time.context("--max-time")?;
    let doing = act(channel, args, max_time, known, out);
    match max_time {
        None => doing.await,
        Some(max_time) => tokio::time::timeout(max_time, doing)
            .await
            .unwrap_or_else(|_| {
                let message = format!("not done within {max_time:?}");
                Err(Status::deadline_exceeded(message).into())
            }),
    }
}

async fn act(
    channel: KeyChannel,
    args: &Args,
    max_time: Option<Duration>,
    known: &mut DescriptorPool,
    out: &mut (impl Write + Send),
) -> Result<()> {
    let options = Options {
        headers: input::headers(&args.headers)?,
        verbose: args.verbose,
        emit_defaults: args.emit_defaults,
        max_time,
    };
    let types = Types::new(args, channel.clone(), &options).await?;
    match (args.method.as_str(), &args.symbol) {
        ("list", None) => {
            for service in types.services().await? {
                writeln!(out, "{service}")?;
            }
        }
        ("list", Some(service)) => {
            let pool = types.of(service).await?;
            let found = pool.get_service_by_name(service);
            let found = found.ok_or_else(|| anyhow!("{service} is not a service"))?;
            for method in found.methods() {
                writeln!(out, "{}", method.full_name())?;
            }
        }
        ("describe", Some(symbol)) => {
            let pool = types.of(symbol).await?;
            let text = describe(&pool, symbol);
            let text = text.ok_or_else(|| anyhow!("there is no symbol {symbol}"))?;
            writeln!(out, "{text}")?;
        }
        ("describe", None) => {
            for service in types.services().await? {
                let pool = types.of(&service).await?;
                writeln!(out, "{}", describe(&pool, &service).unwrap_or_default())?;
            }
        }
        (method, None) => {
            let (service, _) = split_method(method)
                .ok_or_else(|| anyhow!("{method}: not package.Service/Method"))?;
            *known = types.of(service).await?;
            let found = find_method(known, method);
            let found = found.ok_or_else(|| anyhow!("{service} has no method {method}"))?;
            let source = input::source(args.data.as_deref())?;
            invoke(channel, &found, source, &options, out).await?;
        }
        (method, Some(symbol)) => {
            anyhow::bail!("{symbol} after {method}: a request is given with -d")
        }
    }
    Ok(())
}

/// Where the descriptors come from.
enum Types {
    Files(DescriptorPool),
    Server(Box<Reflection>),
}

impl Types {
    async fn new(args: &Args, channel: KeyChannel, options: &Options) -> Result<Self> {
        if args.protoset.is_empty() {
            let reflection = Reflection::new(channel, options.headers.clone());
            return Ok(Self::Server(Box::new(reflection.await?)));
        }
        let mut pool = DescriptorPool::new();
        for file in &args.protoset {
            let added = pool.decode_file_descriptor_set(read(file)?.as_slice());
            added.map_err(|error| anyhow!("{}: {error}", file.display()))?;
        }
        Ok(Self::Files(pool))
    }

    async fn services(&self) -> Result<Vec<String>> {
        Ok(match self {
            Self::Files(pool) => pool.services().map(|s| s.full_name().to_owned()).collect(),
            Self::Server(reflection) => reflection.services().await?,
        })
    }

    /// Descriptors with a symbol, which may be `package.Service/Method`.
    async fn of(&self, symbol: &str) -> Result<DescriptorPool> {
        match self {
            Self::Files(pool) => Ok(pool.clone()),
            Self::Server(reflection) => reflection.symbol(&symbol.replace('/', ".")).await,
        }
    }
}
