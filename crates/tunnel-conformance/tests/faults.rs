//! The suite can fail: paths with one fault each, and the cases that detect it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use tokio::sync::oneshot;
use tonic::body::Body;
use tower::{BoxError, ServiceExt};
use tunnel_conformance::Kind::{Bidi, ClientStream, ServerStream, Unary};
use tunnel_conformance::cases::{
    cancellation, concurrency, early_end, isolation, kinds, messages, metadata, sizes,
};
use tunnel_conformance::{Host, Offer, OraclePath, Path, TestChannel};

/// A path with one fault. Otherwise it is the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    FlipsALastByteOfTheRequests,
    FlipsALastByteOfTheResponses,
    LosesTheSecondFrameOfTheResponses,
    LosesRequestMetadata,
    LosesHeaders,
    LosesTrailers,
    GarblesBinaryMetadata,
    LosesDetails,
    CallsEveryFailureUnknown,
    CallsEveryFailureASuccess,
    KeepsCancelledCallsAlive,
    SwapsTheAnswersOfTwoCalls,
}

use Fault::*;

impl Path for Fault {
    fn host(&self, offer: Offer) -> BoxFuture<'_, Box<dyn Host>> {
        async {
            let oracle = OraclePath.host(offer).await;
            Box::new(FaultyHost {
                oracle,
                fault: *self,
                waiting: Waiting::default(),
            }) as Box<dyn Host>
        }
        .boxed()
    }
}

struct FaultyHost {
    oracle: Box<dyn Host>,
    fault: Fault,
    waiting: Waiting,
}

impl Host for FaultyHost {
    fn connect(&self) -> BoxFuture<'_, TestChannel> {
        async {
            let (fault, waiting) = (self.fault, self.waiting.clone());
            let channel = self.oracle.connect().await;
            TestChannel::new(tower::service_fn(move |request| {
                let call = faulty_call(channel.clone(), fault, request);
                let waiting = waiting.clone();
                async move {
                    match fault {
                        KeepsCancelledCallsAlive => tokio::spawn(call).await?,
                        SwapsTheAnswersOfTwoCalls => Ok(waiting.swap(call.await?).await),
                        _ => call.await,
                    }
                }
            }))
        }
        .boxed()
    }
}

type Answer = http::Response<Body>;

/// An answer that waits to be swapped with the next one, on any channel.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<Option<Waiter>>>);

struct Waiter {
    answer: Answer,
    other: oneshot::Sender<Answer>,
}

impl Waiting {
    async fn swap(&self, answer: Answer) -> Answer {
        let (other, swapped) = oneshot::channel();
        let waiter = self.0.lock().expect("not poisoned").take();
        if let Some(waiter) = waiter {
            let _ = waiter.other.send(answer);
            return waiter.answer;
        }
        let waiter = Waiter { answer, other };
        *self.0.lock().expect("not poisoned") = Some(waiter);
        swapped.await.expect("another answer comes")
    }
}

async fn faulty_call(
    channel: TestChannel,
    fault: Fault,
    mut request: http::Request<Body>,
) -> Result<http::Response<Body>, BoxError> {
    match fault {
        LosesRequestMetadata => lose(request.headers_mut(), |key| {
            key.starts_with("x-") && key != tunnel_conformance::script::SCRIPT_KEY
        }),
        FlipsALastByteOfTheRequests => {
            request = request.map(|body| Body::new(FaultyBody::new(body, fault)));
        }
        _ => {}
    }
    let mut response = channel.oneshot(request).await?;
    spoil(response.headers_mut(), fault);
    if fault == LosesHeaders {
        lose(response.headers_mut(), |key| key.starts_with("x-"));
    }
    Ok(match fault {
        FlipsALastByteOfTheRequests => response,
        _ => response.map(|body| Body::new(FaultyBody::new(body, fault))),
    })
}

fn lose(headers: &mut HeaderMap, is_lost: impl Fn(&str) -> bool) {
    let keys: Vec<_> = headers.keys().cloned().collect();
    for key in keys.into_iter().filter(|key| is_lost(key.as_str())) {
        headers.remove(key);
    }
}

/// The faults of both headers and trailers.
fn spoil(headers: &mut HeaderMap, fault: Fault) {
    match fault {
        LosesDetails => lose(headers, |key| key == "grpc-status-details-bin"),
        GarblesBinaryMetadata => {
            for (_, value) in headers
                .iter_mut()
                .filter(|(key, _)| key.as_str().ends_with("-bin"))
            {
                *value = HeaderValue::from_static("AAAA");
            }
        }
        CallsEveryFailureUnknown | CallsEveryFailureASuccess => {
            if let Some(status) = headers
                .get_mut("grpc-status")
                .filter(|status| *status != "0")
            {
                let instead = if fault == CallsEveryFailureUnknown {
                    "2"
                } else {
                    "0"
                };
                *status = HeaderValue::from_static(instead);
            }
        }
        _ => {}
    }
}

struct FaultyBody {
    body: Body,
    fault: Fault,
    frames: usize,
}

impl FaultyBody {
    fn new(body: Body, fault: Fault) -> Self {
        let frames = 0;
        Self {
            body,
            fault,
            frames,
        }
    }
}

impl http_body::Body for FaultyBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            let frame = match frame.into_data() {
                Ok(data) => {
                    self.frames += 1;
                    match self.fault {
                        LosesTheSecondFrameOfTheResponses if self.frames == 2 => continue,
                        FlipsALastByteOfTheRequests | FlipsALastByteOfTheResponses => {
                            Frame::data(flip_last_byte(data))
                        }
                        _ => Frame::data(data),
                    }
                }
                Err(frame) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    spoil(&mut trailers, self.fault);
                    if self.fault == LosesTrailers {
                        lose(&mut trailers, |key| key.starts_with("x-"));
                    }
                    Frame::trailers(trailers)
                }
            };
            return Poll::Ready(Some(Ok(frame)));
        }
    }
}

/// Flips a bit of a long frame. A short frame may end in a length prefix, whose damage would be
/// another fault.
fn flip_last_byte(data: Bytes) -> Bytes {
    let mut data = BytesMut::from(data);
    if data.len() > 64
        && let Some(last) = data.last_mut()
    {
        *last ^= 1;
    }
    data.freeze()
}

/// Panics unless the case fails, by a panic or by a timeout.
async fn assert_fails(name: &str, case: impl Future<Output = ()> + Send + 'static) {
    let case = tokio::spawn(tokio::time::timeout(Duration::from_secs(2), case));
    let passes = matches!(case.await, Ok(Ok(())));
    assert!(!passes, "{name} should fail on a path with a fault");
}

macro_rules! noticed {
    ($($test:ident: $fault:ident by $($module:ident::$case:ident($($argument:expr),*)),+;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            $(
                let name = stringify!($module::$case($($argument),*));
                let case = async { $module::$case(&$fault, $($argument),*).await };
                assert_fails(name, case).await;
            )+
        }
    )*};
}

noticed! {
    damaged_requests_are_noticed: FlipsALastByteOfTheRequests by
        kinds::succeeds(Unary),
        kinds::succeeds(ClientStream),
        messages::many_small_messages_stay_in_order(ClientStream),
        sizes::messages_of(16_384),
        sizes::messages_of(65_537),
        early_end::a_success_ends_the_upload(Bidi);
    damaged_responses_are_noticed: FlipsALastByteOfTheResponses by
        kinds::succeeds(Unary),
        kinds::succeeds(ServerStream),
        kinds::fails_after_messages(Bidi),
        messages::many_small_messages_stay_in_order(ServerStream),
        messages::bidi_messages_go_back_and_forth(),
        sizes::messages_of(16_384),
        sizes::messages_of_mixed_sizes_keep_their_order(),
        concurrency::a_thousand_unary_calls_at_once();
    lost_messages_are_noticed: LosesTheSecondFrameOfTheResponses by
        messages::many_small_messages_stay_in_order(Bidi),
        messages::bidi_messages_go_back_and_forth(),
        early_end::responses_before_an_early_end_arrive(),
        sizes::a_stream_of_32_mib_arrives_whole(ServerStream);
    lost_request_metadata_is_noticed: LosesRequestMetadata by
        metadata::request_text_arrives(Unary),
        metadata::request_bytes_arrive(Bidi),
        metadata::a_hundred_keys_arrive();
    lost_headers_are_noticed: LosesHeaders by
        metadata::header_text_arrives(Unary),
        metadata::header_bytes_arrive(ServerStream),
        metadata::headers_and_trailers_stay_apart(Bidi),
        messages::headers_come_before_messages(ServerStream),
        kinds::fails_after_headers(Bidi);
    lost_trailers_are_noticed: LosesTrailers by
        metadata::trailer_text_arrives(Unary),
        metadata::trailer_bytes_arrive(ServerStream),
        metadata::trailers_of_a_failure_arrive(ServerStream),
        metadata::headers_and_trailers_stay_apart(Bidi),
        messages::an_empty_response_stream_ends_cleanly(ServerStream);
    garbled_bytes_are_noticed: GarblesBinaryMetadata by
        metadata::header_bytes_arrive(ClientStream),
        metadata::trailer_bytes_arrive(Bidi),
        metadata::trailers_of_a_failure_arrive(Unary);
    lost_details_are_noticed: LosesDetails by
        kinds::fails_before_messages(Unary),
        kinds::fails_after_messages(ClientStream),
        kinds::details_arrive_as_they_were(ServerStream);
    a_wrong_code_is_noticed: CallsEveryFailureUnknown by
        kinds::fails_with_every_code(Unary),
        kinds::fails_without_reading(Bidi),
        early_end::a_failure_ends_the_upload(ClientStream),
        sizes::a_request_over_the_maximum_is_out_of_range(ClientStream);
    a_failure_called_a_success_is_noticed: CallsEveryFailureASuccess by
        kinds::fails_before_messages(ServerStream),
        kinds::fails_after_messages(ServerStream),
        early_end::an_upload_nobody_reads_is_ended(Bidi);
    a_cancellation_that_goes_nowhere_is_noticed: KeepsCancelledCallsAlive by
        cancellation::before_headers(Unary),
        cancellation::during_an_upload(ClientStream),
        cancellation::of_one_call_leaves_the_others();
    mixed_up_calls_are_noticed: SwapsTheAnswersOfTwoCalls by
        concurrency::a_thousand_calls_of_all_kinds_at_once(),
        concurrency::large_transfers_run_side_by_side(),
        isolation::channels_never_see_each_other_s_messages();
}
