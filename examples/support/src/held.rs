//! A call that is in flight for as long as a test wants.

use futures::{FutureExt, StreamExt, future, stream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::test::echo_service_client::EchoServiceClient;
use crate::test::{EchoRequest, EchoResponse};

/// A call of `Echo` whose message is sent later.
#[derive(Debug)]
pub struct Held {
    message: oneshot::Sender<EchoRequest>,
    answer: JoinHandle<Result<String, Status>>,
}

impl Held {
    /// Begins a call through a tunnel, and makes a second one to know that the first
    /// has reached the far end: a tunnel opens calls in order.
    pub async fn begin<T>(tunnel: T) -> Self
    where
        T: GrpcService<Body> + Clone + Send + 'static,
        T::Error: Into<StdError>,
        T::Future: Send,
        T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
    {
        let (message, sent) = oneshot::channel();
        let mut call = call(tunnel.clone(), sent).boxed();
        assert!(futures::poll!(&mut call).is_pending(), "begun, and no more");
        let behind = EchoRequest {
            message: "behind it".into(),
        };
        let behind = EchoServiceClient::new(tunnel).echo(behind).await;
        behind.expect("the tunnel is up");
        Self {
            message,
            answer: tokio::spawn(call),
        }
    }

    /// Sends the message, and waits for the answer.
    pub async fn send(self, message: &str) -> Result<String, Status> {
        let message = EchoRequest {
            message: message.to_owned(),
        };
        self.message.send(message).expect("the call is in flight");
        self.answer.await.expect("no panic")
    }

    /// Waits until the call ends without the message.
    pub async fn end(self) -> Result<String, Status> {
        self.answer.await.expect("no panic")
    }
}

async fn call<T>(channel: T, message: oneshot::Receiver<EchoRequest>) -> Result<String, Status>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut client = Grpc::new(channel);
    if client.ready().await.is_err() {
        return Err(Status::unavailable("the channel is not ready"));
    }
    let messages = stream::once(message).filter_map(|message| future::ready(message.ok()));
    let path = PathAndQuery::from_static("/test.EchoService/Echo");
    let codec = ProstCodec::<EchoRequest, EchoResponse>::default();
    let answer = client.client_streaming(Request::new(messages), path, codec);
    Ok(answer.await?.into_inner().message)
}
