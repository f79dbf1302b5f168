//! One call with messages whose types are known at run time only.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::codec::DynamicCodec;
use super::input;
use super::output;
use crate::connect::KeyChannel;

/// How the call is made and shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) headers: MetadataMap,
    pub(crate) verbose: bool,
    pub(crate) emit_defaults: bool,
    pub(crate) max_time: Option<Duration>,
}

/// Calls a method with the JSON messages of `source`, and writes the responses as they arrive.
///
/// # Errors
///
/// A [`Status`] if the call has failed; anything else if a message cannot be read or written.
pub(crate) async fn invoke(
    channel: KeyChannel,
    method: &MethodDescriptor,
    source: Box<dyn Read + Send>,
    options: &Options,
    out: &mut (impl Write + Send),
) -> Result<()> {
    let sent = Arc::new(AtomicU64::new(0));
    let (wrong_tx, mut wrong) = oneshot::channel();
    let messages = match method.is_client_streaming() {
        true => {
            // A message that cannot be read ends the call.
            let sent = sent.clone();
            input::stream(source, method.input())
                .scan(Some(wrong_tx), move |wrong_tx, message| {
                    let message = match message {
                        Ok(message) => {
                            sent.fetch_add(1, Ordering::Relaxed);
                            Some(message)
                        }
                        Err(error) => {
                            let _ = wrong_tx.take().map(|wrong_tx| wrong_tx.send(error));
                            None
                        }
                    };
                    std::future::ready(message)
                })
                .boxed()
        }
        false => {
            let message = single(source, method).await?;
            sent.store(1, Ordering::Relaxed);
            tokio_stream::once(message).boxed()
        }
    };
    let mut request = Request::new(messages);
    *request.metadata_mut() = options.headers.clone();
    if let Some(max_time) = options.max_time {
        request.set_timeout(max_time);
    }
    let mut client = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    client.ready().await?;
    let path: PathAndQuery =
        format!("/{}/{}", method.parent_service().full_name(), method.name()).parse()?;
    let codec = DynamicCodec {
        response: method.output(),
    };
    if options.verbose {
        writeln!(out, "\nCalling {path}")?;
        writeln!(
            out,
            "\nRequest metadata to send:\n{}",
            output::metadata(&options.headers)
        )?;
    }
    let received = tokio::select! {
        biased;
        Ok(error) = &mut wrong => return Err(error),
        received = receive(client.streaming(request, path, codec), options, out) => received?,
    };
    if options.verbose {
        let sent = sent.load(Ordering::Relaxed);
        writeln!(out, "Messages sent: {sent}, received: {received}")?;
    }
    Ok(())
}

/// Writes the responses of a call, and returns how many there were.
async fn receive(
    calling: impl Future<Output = Result<tonic::Response<tonic::Streaming<DynamicMessage>>, Status>>,
    options: &Options,
    out: &mut (impl Write + Send),
) -> Result<u64> {
    let verbose = options.verbose;
    let failed = |status: Status, out: &mut dyn Write| -> anyhow::Error {
        if verbose {
            let trailers = output::metadata(status.metadata());
            let _ = writeln!(out, "\nResponse trailers received:\n{trailers}");
        }
        status.into()
    };
    let response = match calling.await {
        Ok(response) => response,
        Err(status) => return Err(failed(status, out)),
    };
    if verbose {
        let headers = output::metadata(response.metadata());
        writeln!(
            out,
            "\nResponse headers received:\n{headers}\n\nResponse contents:"
        )?;
    }
    let mut responses = response.into_inner();
    let mut received = 0;
    loop {
        match responses.message().await {
            Ok(Some(message)) => {
                received += 1;
                writeln!(out, "{}", output::json(&message, options.emit_defaults)?)?;
                out.flush()?;
            }
            Ok(None) => break,
            Err(status) => return Err(failed(status, out)),
        }
    }
    if verbose {
        let trailers = responses.trailers().await?.unwrap_or_default();
        let trailers = output::metadata(&trailers);
        writeln!(out, "\nResponse trailers received:\n{trailers}\n")?;
    }
    Ok(received)
}

/// The only message of a source; an empty one if there is none.
async fn single(source: Box<dyn Read + Send>, method: &MethodDescriptor) -> Result<DynamicMessage> {
    let messages = input::stream(source, method.input());
    let mut messages = std::pin::pin!(messages);
    let Some(message) = messages.next().await else {
        return Ok(DynamicMessage::new(method.input()));
    };
    let message = message?;
    match messages.next().await {
        None => Ok(message),
        Some(other) => {
            other.context("after the first message")?;
            bail!("{} takes one message, not several", method.full_name())
        }
    }
}
