//! What the errors of etcd mean.
//!
//! A status that has a source was made here, by the transport. A status without one was sent by etcd. etcd's status
//! codes are coarse, so its texts are compared too; they are part of its API and have not changed since 3.0.

use std::error::Error;
use std::fmt::Write as _;

use tonic::{Code, ConnectError, Status};

use crate::directory::DirectoryError;

/// Why a call brought no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// What was asked for was compacted away. A new snapshot helps.
    Compacted,
    /// Everything else.
    Failed(DirectoryError),
}

impl From<Failure> for DirectoryError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Compacted => Self::Unexpected("the revision was compacted".into()),
            Failure::Failed(error) => error,
        }
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::Failed(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if status.code() == Code::OutOfRange && says(&status, "compacted") {
            return Self::Compacted;
        }
        Self::Failed(directory_error(&status))
    }
}

fn directory_error(status: &Status) -> DirectoryError {
    let text = text(status);
    if status.source().is_some() {
        return connection_error(text);
    }
    match status.code() {
        Code::NotFound if says(status, "lease not found") => DirectoryError::LeaseEnded,
        Code::ResourceExhausted if says(status, "space exceeded") => DirectoryError::Full(text),
        Code::PermissionDenied | Code::Unauthenticated => DirectoryError::Denied(text),
        _ if is_about_token(status) || says(status, "authentication failed") => {
            DirectoryError::Denied(text)
        }
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::Unknown => DirectoryError::Unavailable(text),
        _ => DirectoryError::Unexpected(text),
    }
}

/// The error for a connection that was not made, or was lost.
pub(super) fn connection_error(text: String) -> DirectoryError {
    // An alert of TLS that etcd sent: it does not accept this gateway's certificate.
    match text.contains("received fatal alert") {
        true => DirectoryError::Denied(text),
        false => DirectoryError::Unavailable(text),
    }
}

/// Whether a new token may help: the old one has expired, or etcd has forgotten it in a restart.
pub(super) fn is_about_token(status: &Status) -> bool {
    let texts = [
        "invalid auth token",
        "auth store is old",
        "user name is empty",
    ];
    status.code() == Code::Unauthenticated || texts.iter().any(|text| says(status, text))
}

/// Whether etcd has no users and passwords at all.
pub(super) fn is_without_users(status: &Status) -> bool {
    says(status, "authentication is not enabled")
}

/// Whether another endpoint may do better.
pub(super) fn is_of_endpoint(status: &Status) -> bool {
    let codes = [Code::Unavailable, Code::DeadlineExceeded];
    status.source().is_some() || codes.contains(&status.code())
}

/// Whether the request was certainly not carried out. A member without a leader refuses requests before it looks at
/// them.
pub(super) fn is_unsent(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<ConnectError>())
        || status.source().is_none() && says(status, "no leader")
}

fn says(status: &Status, text: &str) -> bool {
    status.message().contains(text)
}

/// The message of an error and those of its causes.
pub(super) fn text(error: &(dyn Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    for cause in causes(error) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {cause}");
        }
    }
    text
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}
