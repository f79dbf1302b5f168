//! Application buffers. Dropping one may call into the tunnel, so the tunnel drops none under its
//! lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_immediate;
use tonic::body::Body;
use tonic::{Code, Status};
use tunnel_client::TunnelChannel;

use crate::support::body::{Piece, Pieces, data, message, read_all, status};
use crate::support::raw_service::{RawService, answers, raw_call, raw_outcome, response};
use crate::support::{Far, eventually, guarded};

/// If a drop takes longer than this, the dropping thread is assumed to hold the lock.
const DEADLOCK: Duration = Duration::from_secs(30);

type Look = Arc<dyn Fn() + Send + Sync>;

/// The number of buffers dropped without a lock, and under one.
#[derive(Clone, Default)]
struct Drops {
    free: Arc<AtomicUsize>,
    locked: Arc<AtomicUsize>,
}

impl Drops {
    async fn expect(&self, count: usize) {
        let dropped = || self.free.load(Ordering::SeqCst) + self.locked.load(Ordering::SeqCst);
        eventually(|| dropped() >= count).await;
        assert_eq!(self.locked.load(Ordering::SeqCst), 0, "under the lock");
        assert_eq!(self.free.load(Ordering::SeqCst), count);
    }

    /// A message larger than its window, between two small ones. Each buffer calls into a tunnel
    /// when it is dropped.
    fn pieces(&self, look: &Look) -> Vec<Piece> {
        let sizes = [10, 1 << 20, 10];
        let owned = sizes.map(|size| {
            data(Bytes::from_owner(Owner {
                bytes: message(&vec![7; size]),
                look: look.clone(),
                drops: self.clone(),
            }))
        });
        owned.into_iter().collect()
    }
}

struct Owner {
    bytes: Vec<u8>,
    look: Look,
    drops: Drops,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let (done, looked) = mpsc::channel();
        let look = self.look.clone();
        std::thread::spawn(move || {
            look();
            let _ = done.send(());
        });
        let dropped = match looked.recv_timeout(DEADLOCK) {
            Ok(()) => &self.drops.free,
            Err(_) => &self.drops.locked,
        };
        dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn looks_into(tunnel: &TunnelChannel) -> Look {
    let tunnel = tunnel.clone();
    Arc::new(move || _ = tunnel.stats())
}

/// A far end with only this service.
async fn far_with(service: RawService) -> Far {
    Far::start_with(|builder| builder.add_service(service).build()).await
}

/// A service that never reads a request.
fn never_reads() -> RawService {
    answers(|request| async move {
        let _request = request;
        std::future::pending().await
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn buffers_of_a_request_that_was_sent_are_dropped_without_the_lock() {
    guarded(async {
        let far = far_with(answers(|request| async {
            let (bytes, _) = read_all(request.into_body()).await;
            assert_eq!(bytes.len(), (1 << 20) + 20 + 15);
            Status::ok("").into_http()
        }));
        let far = far.await;
        let tunnel = far.tunnel().await;
        let drops = Drops::default();
        let body = Pieces::all(drops.pieces(&looks_into(&tunnel)));
        let (_, status) = raw_outcome(&tunnel, body).await;
        assert_eq!(status.code(), Code::Ok);
        drops.expect(3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buffers_of_a_request_that_is_cancelled_or_loses_its_tunnel_are_dropped_without_the_lock() {
    guarded(async {
        let far = far_with(never_reads()).await;
        for cancel in [true, false] {
            let tunnel = far.tunnel().await;
            let drops = Drops::default();
            let body = Pieces::then_pending(drops.pieces(&looks_into(&tunnel)));
            let mut call = Box::pin(raw_call(&tunnel, body));
            assert!(poll_immediate(call.as_mut()).await.is_none());
            eventually(|| tunnel.stats().bytes_sent > 0).await;
            if cancel {
                drop(call);
                drops.expect(3).await;
            } else {
                tunnel.close().await;
                assert_eq!(call.await.expect_err("lost").code(), Code::Unavailable);
                drops.expect(3).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buffers_of_a_request_that_is_refused_are_dropped_without_the_lock() {
    guarded(async {
        let far = far_with(answers(|_| async {
            Status::permission_denied("no").into_http()
        }));
        let far = far.await;
        let tunnel = far.tunnel().await;
        let drops = Drops::default();
        let body = Pieces::then_pending(drops.pieces(&looks_into(&tunnel)));
        let (_, status) = raw_outcome(&tunnel, body).await;
        assert_eq!(status.code(), Code::PermissionDenied);
        drops.expect(3).await;
    })
    .await;
}

/// How an unread response ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Read,
    Cancelled,
    TunnelClosed,
}

#[tokio::test(flavor = "multi_thread")]
async fn buffers_of_a_response_are_dropped_without_the_lock_however_it_ends() {
    guarded(async {
        for end in [End::Read, End::Cancelled, End::TunnelClosed] {
            let drops = Drops::default();
            let look: Arc<std::sync::OnceLock<Look>> = Arc::default();
            let far = far_with({
                let (drops, look) = (drops.clone(), look.clone());
                answers(move |_| {
                    let look = look.get().expect("set before the call");
                    let mut pieces = drops.pieces(look);
                    pieces.push(status("0"));
                    std::future::ready(response(Pieces::all(pieces)))
                })
            });
            let far = far.await;
            let handler = far.handler.clone();
            let _ = look.set(Arc::new(move || _ = handler.stats()));
            let tunnel = far.tunnel().await;
            let response = raw_call(&tunnel, Body::empty())
                .await
                .expect("headers come");
            match end {
                End::Read => {
                    let (bytes, end) = read_all(response.into_body()).await;
                    assert_eq!(bytes.len(), (1 << 20) + 20 + 15);
                    assert!(end.is_ok());
                }
                End::Cancelled => drop(response),
                End::TunnelClosed => tunnel.close().await,
            }
            drops.expect(3).await;
        }
    })
    .await;
}
