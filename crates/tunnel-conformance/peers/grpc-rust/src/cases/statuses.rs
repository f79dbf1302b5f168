//! Calls that fail.

use std::fmt::Debug;

use anyhow::{Result, anyhow, ensure};
use futures::stream;
use tonic::{Code, Status};
use tunnel_client::TunnelChannel;

use super::client;
use crate::proto::official::unimplemented_service_client::UnimplementedServiceClient;
use crate::proto::official::{EchoStatus, Empty, SimpleRequest, StreamingOutputCallRequest};

const PLAIN: &str = "test status message";
const SPECIAL: &str = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";

pub(super) async fn status_code_and_message(tunnel: TunnelChannel) -> Result<()> {
    let failed = client(tunnel.clone()).unary_call(unary(PLAIN)).await;
    expect(failed, Code::Unknown, Some(PLAIN))?;

    let request = StreamingOutputCallRequest {
        response_status: wanted(PLAIN),
        ..StreamingOutputCallRequest::default()
    };
    let call = client(tunnel)
        .full_duplex_call(stream::iter([request]))
        .await;
    let failed = match call {
        Ok(response) => response.into_inner().message().await,
        Err(status) => Err(status),
    };
    expect(failed, Code::Unknown, Some(PLAIN))
}

pub(super) async fn special_status_message(tunnel: TunnelChannel) -> Result<()> {
    let failed = client(tunnel).unary_call(unary(SPECIAL)).await;
    expect(failed, Code::Unknown, Some(SPECIAL))
}

pub(super) async fn unimplemented_method(tunnel: TunnelChannel) -> Result<()> {
    let failed = client(tunnel).unimplemented_call(Empty {}).await;
    expect(failed, Code::Unimplemented, None)
}

pub(super) async fn unimplemented_service(tunnel: TunnelChannel) -> Result<()> {
    let mut client = UnimplementedServiceClient::new(tunnel);
    let failed = client.unimplemented_call(Empty {}).await;
    expect(failed, Code::Unimplemented, None)
}

fn unary(message: &str) -> SimpleRequest {
    SimpleRequest {
        response_status: wanted(message),
        ..SimpleRequest::default()
    }
}

fn wanted(message: &str) -> Option<EchoStatus> {
    Some(EchoStatus {
        code: Code::Unknown.into(),
        message: message.to_owned(),
    })
}

/// Fails unless a call has failed, and in the right way.
pub(super) fn expect<T: Debug>(
    got: Result<T, Status>,
    code: Code,
    message: Option<&str>,
) -> Result<()> {
    let status = match got {
        Err(status) => status,
        Ok(got) => return Err(anyhow!("expected {code:?}, got {got:?}")),
    };
    ensure!(
        status.code() == code,
        "expected {code:?}, got {:?}: {}",
        status.code(),
        status.message()
    );
    ensure!(
        message.is_none_or(|message| message == status.message()),
        "expected {message:?}, got {:?}",
        status.message()
    );
    Ok(())
}
