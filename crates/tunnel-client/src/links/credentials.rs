//! Metadata and credentials for each attempt to open a tunnel.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tunnel_tonic::TunnelError;

use super::status::LinkError;

/// An attempt to open a tunnel, as the hook of
/// [`credentials`](crate::ReverseTunnelServerBuilder::credentials) sees it.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub(crate) gateway: Arc<str>,
    pub(crate) number: u64,
    pub(crate) last_error: Option<LinkError>,
}

impl Attempt {
    /// The name of the gateway.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The number of this attempt of its link, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The link's last error, from an attempt or a tunnel, if any. After UNAUTHENTICATED, discard cached
    /// credentials.
    pub fn last_error(&self) -> Option<&LinkError> {
        self.last_error.as_ref()
    }
}

type Hook = dyn Fn(Attempt) -> BoxFuture<'static, Result<MetadataMap, Status>> + Send + Sync;

/// Fixed metadata, and a hook for metadata that changes.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    pub(crate) fixed: MetadataMap,
    hook: Option<Arc<Hook>>,
}

impl Credentials {
    pub(crate) fn set_hook<F, Fut>(&mut self, hook: F)
    where
        F: Fn(Attempt) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<MetadataMap, Status>> + Send + 'static,
    {
        self.hook = Some(Arc::new(move |attempt| hook(attempt).boxed()));
    }

    /// The metadata for an attempt. The hook's values replace fixed ones with the same key.
    pub(crate) async fn for_attempt(
        &self,
        attempt: Attempt,
        timeout: Duration,
    ) -> Result<MetadataMap, TunnelError> {
        let Some(hook) = &self.hook else {
            return Ok(self.fixed.clone());
        };
        // A hook that panics or never answers is a failed attempt, not the end of the link.
        let asked = AssertUnwindSafe(async { hook(attempt).await }).catch_unwind();
        let fresh = match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(answer)) => answer.map_err(TunnelError::Credentials)?,
            Ok(Err(_panic)) => {
                let status = Status::internal("the credentials hook panicked");
                return Err(TunnelError::Credentials(status));
            }
            Err(_) => {
                let message = format!("the credentials hook did not answer within {timeout:?}");
                return Err(TunnelError::Credentials(Status::deadline_exceeded(message)));
            }
        };
        let mut headers = self.fixed.clone().into_headers();
        // Replaces all values of a key that both have.
        headers.extend(fresh.into_headers());
        Ok(MetadataMap::from_headers(headers))
    }
}

/// Leaves out all values.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("hook", &self.hook.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&'static str, &str)]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for (key, value) in entries {
            map.append(*key, value.parse().expect("legal"));
        }
        map
    }

    fn attempt() -> Attempt {
        Attempt {
            gateway: "g".into(),
            number: 1,
            last_error: None,
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn what_the_hook_says_takes_the_place_of_what_was_fixed() {
        let mut credentials = Credentials {
            fixed: map(&[("token", "old"), ("token", "older"), ("device", "17")]),
            hook: None,
        };
        credentials.set_hook(|_| async { Ok(map(&[("token", "new"), ("token", "newer")])) });
        let merged = credentials.for_attempt(attempt(), TIMEOUT).await;
        let merged = merged.expect("the hook succeeds");
        let tokens: Vec<_> = merged.get_all("token").iter().collect();
        assert_eq!(tokens, ["new", "newer"]);
        assert_eq!(merged.get("device").expect("kept"), "17");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_hangs_or_panics_has_failed() {
        let mut credentials = Credentials::default();
        credentials.set_hook(|_| std::future::pending());
        let error = credentials.for_attempt(attempt(), TIMEOUT).await;
        assert!(matches!(
            error,
            Err(TunnelError::Credentials(status)) if status.code() == tonic::Code::DeadlineExceeded
        ));
        credentials.set_hook(|attempt| {
            assert!(attempt.number() > 1, "as the test wants it");
            async { Ok(MetadataMap::new()) }
        });
        let error = credentials.for_attempt(attempt(), TIMEOUT).await;
        assert!(matches!(
            error,
            Err(TunnelError::Credentials(status)) if status.code() == tonic::Code::Internal
        ));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let credentials = Credentials {
            fixed: map(&[("authorization", "s3cret")]),
            hook: None,
        };
        assert!(!format!("{credentials:?}").contains("s3cret"));
    }
}
