//! The service of a device: it notes the calls that it serves.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use example_support::test::echo_service_server::EchoService;
use example_support::test::{EchoErrorRequest, EchoRequest, EchoResponse};
use tonic::{Request, Response, Status};

/// The calls that devices have served. Clones are the same list.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u64>>>);

impl Log {
    fn add(&self, id: u64) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id);
    }

    /// The calls since the last time, each as often as it was served.
    pub(crate) fn take(&self) -> Vec<u64> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves calls: the message of a request is the id of the call and for how long it is to wait, in milliseconds. The
/// response is the key and the session of the device.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) key: String,
    pub(crate) session: String,
    pub(crate) log: Log,
}

/// The message of a request.
pub(crate) fn message(id: u64, wait: Duration) -> String {
    format!("{id} {}", wait.as_millis())
}

fn parse(message: &str) -> Option<(u64, Duration)> {
    let (id, wait) = message.split_once(' ')?;
    Some((id.parse().ok()?, Duration::from_millis(wait.parse().ok()?)))
}

#[tonic::async_trait]
impl EchoService for Service {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let Some((id, wait)) = parse(&request.get_ref().message) else {
            return Err(Status::invalid_argument("an id and a time, please"));
        };
        self.log.add(id);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let message = format!("{} {}", self.key, self.session);
        Ok(Response::new(EchoResponse { message }))
    }

    async fn echo_error(
        &self,
        _: Request<EchoErrorRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}
