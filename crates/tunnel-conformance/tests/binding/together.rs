//! Frames that are ready together are sent together: the writer runs after the ready tasks.

use std::future::{Future, poll_fn};
use std::pin::Pin;

use http_body::Body as _;
use tokio::sync::mpsc;
use tonic::body::Body;
use tunnel_core::frame::framing::Deframer;
use tunnel_core::{FrameKind, Side};
use tunnel_server::TunnelServiceHandler;

use crate::support::body::{Pieces, status};
use crate::support::guarded;
use crate::support::peer::RawCaller;
use crate::support::raw_service::{answers, response};

/// The number of concurrent calls. A tokio worker looks at other queues after 61 tasks, so the
/// number is smaller.
const CALLS: i64 = 40;

/// Reads a body in a task, as a transport does. Each piece is one network write. Reports the number
/// of calls that each piece ends.
fn transport(mut body: Body) -> mpsc::UnboundedReceiver<usize> {
    let (pieces, read) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut deframer = Deframer::new(usize::MAX);
        let mut next = async || poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        while let Some(Ok(piece)) = next().await {
            deframer.push(piece.into_data().expect("no end"));
            let mut ended = 0;
            while let Some(frame) = deframer.decode_next(Side::Handler).expect("well-formed") {
                ended += usize::from(matches!(frame.kind, FrameKind::Close(_)));
            }
            if pieces.send(ended).is_err() {
                break;
            }
        }
    });
    read
}

/// Runs `work` on the runtime's only worker. The test's own thread is not a worker.
async fn in_the_worker<F>(work: F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(work).await.expect("does not panic")
}

/// The first answer wakes the writer. Tokio would run it next, before the other handlers.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_answers_of_calls_that_came_together_leave_in_few_pieces() {
    guarded(in_the_worker(async {
        let service = answers(|_| async { response(Pieces::all(vec![status("0")])) });
        let handler = TunnelServiceHandler::builder().add_service(service).build();
        let mut caller = RawCaller::in_process(handler.service()).await;
        let mut pieces = transport(caller.take_hearing());
        caller.calls_at_once(1..=CALLS, "/raw.Service/Any");
        let (mut ended, mut count) = (0, 0);
        while ended < CALLS as usize {
            ended += pieces.recv().await.expect("answers");
            count += 1;
        }
        assert!(count <= 4, "{count} pieces");
    }))
    .await;
}
