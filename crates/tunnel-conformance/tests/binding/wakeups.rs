//! Wake-ups that certain transports could cause to be lost.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::Body as _;
use tonic::body::Body;
use tunnel_core::frame::framing::Deframer;
use tunnel_core::{FrameKind, Side};
use tunnel_server::TunnelServiceHandler;

use crate::support::body::{data, message, status};
use crate::support::guarded;
use crate::support::peer::RawCaller;
use crate::support::raw_service::answers_with;

/// A transport that takes one batch inside each wake-up, and more on request.
struct Eager {
    body: Mutex<Body>,
    taken: Mutex<VecDeque<Bytes>>,
}

impl Eager {
    /// Takes one batch if there is one.
    fn take(self: &Arc<Self>) -> bool {
        let mut body = match self.body.try_lock() {
            Ok(body) => body,
            // The wake-up comes from the `take` under way, which polls again anyway.
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(_)) => panic!("a poll panicked"),
        };
        let waker = Waker::from(self.clone());
        let poll = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(&waker));
        let Poll::Ready(Some(Ok(frame))) = poll else {
            return false;
        };
        if let Ok(batch) = frame.into_data() {
            self.taken.lock().expect("not poisoned").push_back(batch);
        }
        true
    }
}

impl Wake for Eager {
    fn wake(self: Arc<Self>) {
        self.take();
    }
}

/// The response is ready at once and fills its stream beyond the high mark. Before the handler goes
/// idle, the transport drains the stream below the high mark, but not to the level at which the
/// handler is woken. The handler must still be woken later.
#[tokio::test]
async fn a_response_goes_on_whenever_the_transport_takes_its_beginning() {
    guarded(async {
        // The messages are so small that overhead is most of their cost. All of them fit in the
        // window.
        const MESSAGES: [usize; 2] = [5500, 3000];
        let pieces = || {
            let many = MESSAGES.map(|count| data(message(b"7 bytes").repeat(count)));
            many.into_iter().chain([status("0")]).collect()
        };
        let handler = TunnelServiceHandler::builder()
            .add_service(answers_with(pieces))
            .build();
        let mut caller = RawCaller::in_process(handler.service()).await;
        let eager = Arc::new(Eager {
            body: Mutex::new(caller.take_hearing()),
            taken: Mutex::default(),
        });
        while eager.take() {}
        caller.call(1, "/raw.Service/Any");
        let mut deframer = Deframer::new(1 << 20);
        let mut messages = 0;
        loop {
            tokio::task::yield_now().await;
            eager.take();
            let batches = std::mem::take(&mut *eager.taken.lock().expect("not poisoned"));
            batches.into_iter().for_each(|batch| deframer.push(batch));
            while let Some(frame) = deframer.decode_next(Side::Handler).expect("frames") {
                match frame.kind {
                    FrameKind::Message { .. } => messages += 1,
                    FrameKind::Close(_) => {
                        assert_eq!(messages, MESSAGES[0] + MESSAGES[1]);
                        caller.finish();
                        return;
                    }
                    _ => {}
                }
            }
        }
    })
    .await;
}
