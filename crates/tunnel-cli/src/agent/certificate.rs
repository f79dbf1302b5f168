//! The first start of an agent with a one-time token: it gets its certificate from a gateway.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tonic::{Code, Status};

use super::settings::Settings;
use crate::connect::{Credentials, read};
use crate::enroll::enroll;
use crate::private_file;

/// The pause before the gateways are asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// Gets the certificate, unless it is there. Goes on until a gateway answers.
///
/// # Errors
///
/// The token is not good, or the files cannot be written.
pub(super) async fn obtain(settings: &Settings) -> Result<()> {
    let Some((token, cert, cert_key)) = settings.certificate_to_obtain() else {
        return Ok(());
    };
    let token = String::from_utf8(read(token)?).context("the one-time token is not text")?;
    let key = settings.key.as_deref().unwrap_or_default();
    let credentials = Credentials {
        cert: None,
        cert_key: None,
        token_file: None,
        ..settings.credentials()
    };
    loop {
        for gateway in &settings.gateway {
            match ask(gateway, &credentials, &token, key, cert, cert_key).await {
                Ok(()) => {
                    println!(
                        "agent: {} has the certificate that {gateway} made for {key}",
                        cert.display()
                    );
                    return Ok(());
                }
                Err(error) if is_final(&error) => {
                    return Err(anyhow!("{gateway} gives no certificate: {}", text(&error)));
                }
                Err(error) => {
                    tracing::warn!("no certificate from {gateway} yet: {}", text(&error));
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(
    gateway: &str,
    credentials: &Credentials,
    token: &str,
    key: &str,
    cert: &Path,
    cert_key: &Path,
) -> Result<()> {
    let endpoint = credentials.endpoint(gateway)?;
    if endpoint.uri().scheme_str() != Some("https") {
        bail!(
            "{gateway} is not TLS, and everybody on the way could read the one-time token: set --ca"
        );
    }
    let channel = endpoint
        .connect()
        .await
        .with_context(|| format!("cannot reach {gateway}"))?;
    let enrolled = enroll(channel, token, key).await?;
    // The certificate comes last: it says that both are there.
    private_file::write(cert_key, enrolled.private_key.as_bytes())?;
    private_file::write(cert, enrolled.certificate.as_bytes())
}

/// An error in one line. Of a status the message is enough.
fn text(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => format!("{error:#}"),
    }
}

/// Whether asking again cannot help.
fn is_final(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Status>().map(Status::code) {
        Some(code) => matches!(
            code,
            Code::Unauthenticated | Code::InvalidArgument | Code::Unimplemented
        ),
        None => !error.is::<tonic::transport::Error>(),
    }
}
