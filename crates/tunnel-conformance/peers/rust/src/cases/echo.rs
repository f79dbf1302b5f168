//! Calls of the service of the examples.

use anyhow::Result;
use example_support::test::{EchoErrorRequest, EchoRequest};
use tonic::Code;

use super::caller::Caller;
use super::expect::{expect, expect_ok, expect_status};

pub(super) async fn echo(c: &Caller) -> Result<()> {
    c.does("echo");
    for message in ["Hello", "naïve 🦀"] {
        let message = message.to_owned();
        let expected = format!("Echo: {message}");
        let response = c.echo().echo(EchoRequest { message }).await;
        let response = expect_ok("echo", response)?.into_inner();
        expect("echo", expected, response.message)?;
    }
    Ok(())
}

pub(super) async fn echo_error(c: &Caller) -> Result<()> {
    c.does("echo error");
    let request = EchoErrorRequest {
        code: Code::NotFound as i32,
        message: "nothing here".to_owned(),
    };
    let got = c.echo().echo_error(request).await;
    expect_status("echo error", Code::NotFound, "nothing here", &got)
}
