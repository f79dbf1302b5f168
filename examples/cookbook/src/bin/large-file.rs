//! A large file: up and down through a tunnel, with a progress bar and in flat memory.
//!
//! A file is a stream of chunks. Flow control makes the sender wait for the receiver, so neither end holds
//! more than a few megabytes of it, however large it is. This program counts what it allocates.

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use cap::Cap;
use clap::Parser;
use cookbook::test::file_service_client::FileServiceClient;
use cookbook::test::file_service_server::{FileService, FileServiceServer};
use cookbook::test::{Chunk, DownloadRequest, Stored};
use example_support::serve::on_loopback;
use futures::stream::BoxStream;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;
use tokio_util::io::ReaderStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tunnel_client::ForwardChannel;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// Counts the memory of the program, which is both ends of the tunnel.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// The size of a chunk. Smaller ones cost more work, larger ones more memory.
const CHUNK: usize = 64 * 1024;

/// The most memory that the program may need.
const FLAT: usize = 32 << 20;

/// Sends a large file through a tunnel and back, in flat memory.
#[derive(Parser)]
struct Args {
    /// The size of the file in MiB.
    #[arg(long, value_name = "N", default_value_t = 256)]
    mib: u64,
}

/// Keeps one file.
struct Files {
    path: PathBuf,
}

#[tonic::async_trait]
impl FileService for Files {
    async fn upload(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Stored>, Status> {
        let mut file = File::create(&self.path).await?;
        let mut chunks = request.into_inner();
        let mut size = 0;
        // While this writes, the tunnel's window for the call fills up, and the sender waits.
        while let Some(chunk) = chunks.message().await? {
            file.write_all(&chunk.data).await?;
            size += chunk.data.len() as u64;
        }
        file.flush().await?;
        Ok(Response::new(Stored { size }))
    }

    type DownloadStream = BoxStream<'static, Result<Chunk, Status>>;

    async fn download(
        &self,
        _: Request<DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let file = File::open(&self.path).await?;
        let chunks = ReaderStream::with_capacity(file, CHUNK);
        let chunks = chunks.map(|data| Ok(Chunk { data: data? }));
        Ok(Response::new(Box::pin(chunks)))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let size = Args::parse().mib << 20;
    let directory = tempfile::tempdir()?;
    let original = directory.path().join("original");
    write_file(&original, size).await?;

    let files = Files {
        path: directory.path().join("stored"),
    };
    let handler = TunnelServiceHandler::builder()
        .add_service(FileServiceServer::new(files))
        .build();
    let server = server_for_tunnels(Server::builder()).add_service(handler.service());
    let address = on_loopback(server).await?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let channel = ForwardChannel::builder(endpoint).connect().await?;
    let mut client = FileServiceClient::new(channel);

    let bar = progress(size, "up")?;
    let shown = Arc::new(bar.clone());
    let chunks = ReaderStream::with_capacity(File::open(&original).await?, CHUNK)
        // A request has no place for an error of its own: a file that cannot be read ends early, and the
        // size says so.
        .map_while(Result::ok)
        .map(move |data| {
            shown.inc(data.len() as u64);
            Chunk { data }
        });
    let stored = client.upload(chunks).await?.into_inner().size;
    bar.finish();
    ensure!(stored == size, "{stored} of {size} bytes were stored");
    println!("sent {}", HumanBytes(stored));

    let bar = progress(size, "down")?;
    let mut chunks = client.download(DownloadRequest {}).await?.into_inner();
    let mut original = File::open(&original).await?;
    let mut expected = vec![0; CHUNK];
    let mut received = 0;
    while let Some(Chunk { data }) = chunks.message().await? {
        let expected = &mut expected[..data.len()];
        original.read_exact(expected).await?;
        ensure!(data == *expected, "another file has come back");
        received += data.len() as u64;
        bar.inc(data.len() as u64);
    }
    bar.finish();
    ensure!(received == size, "{received} of {size} bytes were received");
    println!("received {}, the same bytes", HumanBytes(received));

    let peak = MEMORY.max_allocated();
    println!(
        "both ends together needed {} at most",
        HumanBytes(peak as u64)
    );
    ensure!(peak < FLAT, "that is not flat");
    println!("✓ The file has gone both ways in flat memory");
    Ok(())
}

/// A progress bar, which is shown only at a terminal.
fn progress(size: u64, direction: &'static str) -> Result<ProgressBar> {
    let style = "{prefix:>4} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let bar = ProgressBar::new(size).with_style(ProgressStyle::with_template(style)?);
    Ok(bar.with_prefix(direction))
}

async fn write_file(path: &Path, size: u64) -> Result<()> {
    let mut file = File::create(path).await?;
    for number in 0..size / CHUNK as u64 {
        let block = Bytes::from(vec![number as u8; CHUNK]);
        file.write_all(&block).await?;
    }
    Ok(file.flush().await?)
}
