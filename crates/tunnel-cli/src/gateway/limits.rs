//! Limits for each key: calls in flight, calls a second, bytes a second.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tonic::Status;
use tonic::metadata::MetadataValue;

use super::settings::Settings;

type Key = Arc<str>;

/// The limits of all keys.
#[derive(Debug)]
pub(crate) struct Limits {
    max_calls: usize,
    in_flight: Mutex<HashMap<Key, usize>>,
    calls: Option<DefaultKeyedRateLimiter<Key>>,
    bytes: Option<Bytes>,
}

#[derive(Debug)]
struct Bytes {
    limiter: DefaultKeyedRateLimiter<Key>,
    burst: NonZeroU32,
}

/// A call in flight. Dropping it ends the call for the limits.
#[derive(Debug)]
pub(crate) struct InFlight {
    limits: Arc<Limits>,
    key: Key,
}

impl Limits {
    /// The limits as the settings say.
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        let rate = |limit: Option<u32>| limit.and_then(NonZeroU32::new);
        let per_second = |n| RateLimiter::keyed(Quota::per_second(n));
        Arc::new(Self {
            max_calls: settings.max_calls_of_key.unwrap_or(usize::MAX),
            in_flight: Mutex::default(),
            calls: rate(settings.calls_per_second_of_key).map(per_second),
            bytes: rate(settings.bytes_per_second_of_key).map(|burst| Bytes {
                limiter: per_second(burst),
                burst,
            }),
        })
    }

    /// Begins a call.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED, with the time to wait when the rate is too high.
    pub(crate) fn begin(self: &Arc<Self>, key: &Key) -> Result<InFlight, Status> {
        if let Some(calls) = &self.calls
            && let Err(later) = calls.check_key(key)
        {
            let wait = later.wait_time_from(DefaultClock::default().now());
            return Err(too_fast(key, wait));
        }
        let mut in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = in_flight.entry(key.clone()).or_default();
        if *count >= self.max_calls {
            let message = format!("{key:?} has {count} calls in flight, as many as are allowed");
            return Err(Status::resource_exhausted(message));
        }
        *count += 1;
        Ok(InFlight {
            limits: self.clone(),
            key: key.clone(),
        })
    }

    /// Forgets keys that were not called for a while.
    pub(crate) fn forget_idle(&self) {
        for limiter in self
            .calls
            .iter()
            .chain(self.bytes.iter().map(|bytes| &bytes.limiter))
        {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

fn too_fast(key: &str, wait: Duration) -> Status {
    let message = format!("calls to {key:?} are too frequent: again in {wait:.1?}");
    let mut status = Status::resource_exhausted(message);
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let pushback = MetadataValue::from(millis);
    status
        .metadata_mut()
        .insert("grpc-retry-pushback-ms", pushback);
    status
}

/// The wait of a body that was faster than its key may be.
pub(crate) type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

impl InFlight {
    /// Counts bytes of the call. Returns what to wait for before there are more.
    pub(crate) fn pause_after(self: &Arc<Self>, bytes: usize) -> Option<Pause> {
        let limit = self.limits.bytes.as_ref()?;
        let bytes = NonZeroU32::new(u32::try_from(bytes).unwrap_or(u32::MAX))?;
        if matches!(limit.limiter.check_key_n(&self.key, bytes), Ok(Ok(()))) {
            return None;
        }
        let call = self.clone();
        Some(Box::pin(async move {
            let Some(limit) = &call.limits.bytes else {
                return;
            };
            // More than the burst at once is never allowed.
            let mut rest = bytes.get();
            while let Some(part) = NonZeroU32::new(rest.min(limit.burst.get())) {
                // Fails only for more than the burst.
                let _ = limit.limiter.until_key_n_ready(&call.key, part).await;
                rest -= part.get();
            }
        }))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut in_flight = self
            .limits
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = in_flight.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                in_flight.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(settings: Settings) -> Arc<Limits> {
        Limits::new(&settings)
    }

    #[test]
    fn a_key_has_as_many_calls_in_flight_as_are_allowed() {
        let limits = limits(Settings {
            max_calls_of_key: Some(1),
            ..Settings::default()
        });
        let (a, b) = (Key::from("a"), Key::from("b"));
        let first = limits.begin(&a).expect("the first");
        let second = limits.begin(&a).expect_err("one too many");
        assert_eq!(second.code(), tonic::Code::ResourceExhausted);
        let _other = limits.begin(&b).expect("another key");
        drop(first);
        let _next = limits.begin(&a).expect("there is room");
    }

    #[test]
    fn calls_that_are_too_frequent_are_told_when_to_come_back() {
        let limits = limits(Settings {
            calls_per_second_of_key: Some(1),
            ..Settings::default()
        });
        let key = Key::from("a");
        drop(limits.begin(&key).expect("the first"));
        let status = limits.begin(&key).expect_err("too fast");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        let wait = status
            .metadata()
            .get("grpc-retry-pushback-ms")
            .expect("a wait");
        let wait: u64 = wait
            .to_str()
            .ok()
            .and_then(|w| w.parse().ok())
            .expect("a number");
        assert!(wait <= 1000, "{wait}");
    }

    #[tokio::test]
    async fn bytes_beyond_the_rate_make_the_call_wait() {
        let limits = limits(Settings {
            bytes_per_second_of_key: Some(1000),
            ..Settings::default()
        });
        let call = Arc::new(limits.begin(&Key::from("a")).expect("allowed"));
        assert!(call.pause_after(1000).is_none());
        let pause = call.pause_after(10).expect("the burst is used up");
        pause.await;
    }

    #[tokio::test]
    async fn more_bytes_than_a_second_allows_wait_for_several() {
        let limits = limits(Settings {
            bytes_per_second_of_key: Some(10_000),
            ..Settings::default()
        });
        let call = Arc::new(limits.begin(&Key::from("a")).expect("allowed"));
        let began = std::time::Instant::now();
        call.pause_after(25_000).expect("too much").await;
        assert!(began.elapsed() >= Duration::from_millis(1400));
    }
}
