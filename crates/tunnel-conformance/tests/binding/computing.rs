//! A handler that computes does not delay other streams.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};

use futures::future::join;
use http_body::Body as _;
use tokio::sync::mpsc::unbounded_channel;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;
use tunnel_conformance::{ForwardPath, Offer, Path, PlainTcpPath, ReversePath, TestChannel};

use crate::support::body::{Piece, Pieces, data, message, read_all, status};
use crate::support::guarded;
use crate::support::raw_service::{RawService, answers, raw_request_for, response};

/// The number of handlers that compute, one after another.
const COMPUTATIONS: usize = 50;

/// The number of round trips on another stream during each computation.
const ROUND_TRIPS: usize = 10;

/// Blocks its thread until the test ends the computation, or echoes.
fn service(computed: mpsc::Receiver<()>) -> RawService {
    let computed = Arc::new(Mutex::new(computed));
    answers(move |request| {
        let computed = computed.clone();
        async move {
            if request.uri().path() != "/raw.Service/Compute" {
                return response(Body::new(Pieces::new(echo(request.into_body()))));
            }
            // With plain tonic as well, a tokio runtime whose only awake worker is blocked wakes no
            // other worker for network events. The second spawn makes tokio wake another worker.
            for _ in 0..2 {
                tokio::spawn(async {});
            }
            // Blocks the worker thread, as a computation does.
            let computed = computed.lock().expect("not poisoned").recv();
            computed.expect("the test goes on");
            response(Pieces::all(vec![status("0")]))
        }
    })
}

fn echo(mut body: Body) -> impl futures::Stream<Item = Piece> + Send + 'static {
    futures::stream::poll_fn(move |cx| Pin::new(&mut body).poll_frame(cx))
}

/// Makes round trips on one stream while handlers of the same connection compute. Each handler
/// computes until its round trips are done.
async fn round_trips_beside_computing_handlers(path: &dyn Path) {
    let (end, computed) = mpsc::channel();
    let host = path.host(Offer::new(Routes::new(service(computed)))).await;
    let channel = host.connect().await;
    let (ping, pings) = unbounded_channel();
    let pings = Pieces::new(UnboundedReceiverStream::new(pings).map(data));
    let mut pongs = call(&channel, "Echo", Body::new(pings)).await;
    let mut round_trip = async || {
        ping.send(message(b"ping")).expect("the stream is open");
        let mut read = 0;
        while read < message(b"ping").len() {
            let pong = poll_fn(|cx| Pin::new(&mut pongs).poll_frame(cx)).await;
            let pong = pong.expect("no end").expect("no error").into_data();
            read += pong.expect("a message").len();
        }
    };
    for _ in 0..COMPUTATIONS {
        let computation = async {
            let body = Pieces::all(vec![data(message(b""))]);
            let (_, end) = read_all(call(&channel, "Compute", body).await).await;
            end.expect("an answer");
        };
        let trips = async {
            for _ in 0..ROUND_TRIPS {
                round_trip().await;
            }
            end.send(()).expect("the far end lives");
        };
        join(computation, trips).await;
    }
}

async fn call(channel: &TestChannel, method: &str, body: Body) -> Body {
    let request = raw_request_for(method, body);
    let response = channel.clone().oneshot(request).await;
    response.expect("an answer").into_body()
}

#[tokio::test]
async fn a_handler_that_computes_does_not_hold_up_another_stream() {
    guarded(async {
        let paths: [&dyn Path; 3] = [
            &PlainTcpPath,
            &ForwardPath::REVISION_ONE,
            &ReversePath::REVISION_ONE,
        ];
        for path in paths {
            round_trips_beside_computing_handlers(path).await;
        }
    })
    .await;
}
