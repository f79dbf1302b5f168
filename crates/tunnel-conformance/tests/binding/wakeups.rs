//! Wake-ups that an unlucky transport could lose.

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

/// A transport that takes one batch at the very moment it is told that there is one, and more
/// when it is asked to.
struct Eager {
    body: Mutex<Body>,
    taken: Mutex<VecDeque<Bytes>>,
}

impl Eager {
    /// Takes what is there, one batch of it.
    fn take(self: &Arc<Self>) -> bool {
        let mut body = match self.body.try_lock() {
            Ok(body) => body,
            // Told while it takes: by itself, so it looks again anyhow.
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

/// A response that is ready at once fills its stream beyond the mark, and between this and the
/// handler's rest the transport takes it down to below the mark, but not to where the handler
/// is woken. It must be woken later all the same.
#[tokio::test]
async fn a_response_goes_on_whenever_the_transport_takes_its_beginning() {
    guarded(async {
        // So small that what they cost is mostly their being messages; all fit in the window.
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
