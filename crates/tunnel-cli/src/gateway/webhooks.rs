//! Webhooks: an HTTP request for each device that comes, goes or is denied.
//!
//! Signed as [Standard Webhooks](https://www.standardwebhooks.com) says. Each address gets its events in their order, one at a
//! time. An event that is not taken is tried again; the queue of an address that is away is bounded.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use sha2::Sha256;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::change::{Change, What};
use super::presence::Presence;
use crate::connect::read;

/// How many events wait for an address. The oldest is given up for a new one.
const QUEUE: usize = 10_000;

/// How often an event is tried.
const ATTEMPTS: u32 = 8;

/// The pause after the first failure. Each next one is twice as long, up to five minutes.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// How long an address may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Event {
    /// `device.online`, `device.offline` or `device.denied`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// In RFC 3339.
    timestamp: String,
    data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Data {
    key: String,
    /// Why a tunnel ended, or a key is denied.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// Where events are sent to, and the secret that signs them.
pub(crate) struct Webhooks {
    addresses: Vec<Uri>,
    secret: Option<Vec<u8>>,
}

impl Webhooks {
    /// The webhooks of these addresses. The secret is the text of a file, or the base64 behind `whsec_` in it.
    pub(crate) fn open(addresses: &[String], secret: Option<&Path>) -> Result<Self> {
        let addresses = addresses.iter().map(|address| {
            let uri: Uri = address
                .parse()
                .with_context(|| format!("webhook: not a URL: {address}"))?;
            match uri.scheme_str() {
                Some("http" | "https") if uri.host().is_some() => Ok(uri),
                _ => bail!("webhook: not http:// or https://: {address}"),
            }
        });
        let secret = secret.map(|file| {
            let text = String::from_utf8(read(file)?)
                .with_context(|| format!("{} is not text", file.display()))?;
            let text = text.trim();
            let secret = match text.strip_prefix("whsec_") {
                Some(encoded) => BASE64.decode(encoded.as_bytes()).with_context(|| {
                    format!("{}: what follows whsec_ is not base64", file.display())
                })?,
                None => text.as_bytes().to_vec(),
            };
            match secret.is_empty() {
                true => bail!("{} is empty", file.display()),
                false => Ok(secret),
            }
        });
        Ok(Self {
            addresses: addresses.collect::<Result<_>>()?,
            secret: secret.transpose()?,
        })
    }

    /// Sends the events from now on, for ever.
    pub(crate) fn run(self, presence: Arc<Presence>) -> impl Future<Output = Result<()>> + Send {
        // Before anything else, so that the first device is not missed.
        let (present, changes) = presence.subscribe();
        let online = present.into_keys().collect();
        self.follow(presence, changes, online)
    }

    async fn follow(
        self,
        presence: Arc<Presence>,
        mut changes: broadcast::Receiver<Arc<Change>>,
        mut online: BTreeSet<Arc<str>>,
    ) -> Result<()> {
        // Reads many files.
        let client = tokio::task::spawn_blocking(client).await??;
        let secret: Option<Arc<[u8]>> = self.secret.map(Into::into);
        let mut deliveries = JoinSet::new();
        let mut queues = Vec::new();
        for address in self.addresses {
            let (sender, receiver) = mpsc::unbounded_channel();
            queues.push(sender);
            deliveries.spawn(deliver(client.clone(), address, secret.clone(), receiver));
        }
        loop {
            let events = match changes.recv().await {
                Ok(change) => event(&change, &presence, &mut online).into_iter().collect(),
                // Too many at once: what is true now says what was missed.
                Err(RecvError::Lagged(_)) => {
                    let (present, resumed) = presence.subscribe();
                    changes = resumed;
                    let now: BTreeSet<_> = present.into_keys().collect();
                    let events = differences(&online, &now);
                    online = now;
                    events
                }
                Err(RecvError::Closed) => return Ok(()),
            };
            for event in events {
                for queue in &queues {
                    // Fails only at the end of the gateway.
                    let _ = queue.send(event.clone());
                }
            }
        }
    }
}

fn new_event(kind: &'static str, at: SystemTime, key: &str, reason: &str) -> Event {
    let at = chrono::DateTime::<chrono::Utc>::from(at);
    Event {
        kind,
        timestamp: at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        data: Data {
            key: key.to_owned(),
            reason: reason.to_owned(),
        },
    }
}

/// The event of a change, if it is one: a key comes with its first tunnel and goes with its last.
fn event(change: &Change, presence: &Presence, online: &mut BTreeSet<Arc<str>>) -> Option<Event> {
    let Change { at, key, what } = change;
    if key.is_empty() {
        return None;
    }
    match what {
        What::Opened(_) => online
            .insert(key.clone())
            .then(|| new_event("device.online", *at, key, "")),
        What::Closed { reason, .. } => {
            let device = presence.device(key);
            let gone = device.is_none_or(|device| device.tunnels.is_empty());
            (gone && online.remove(key)).then(|| new_event("device.offline", *at, key, reason))
        }
        What::Denied(denial) => Some(new_event("device.denied", *at, key, &denial.reason)),
        What::Refused { .. } | What::Allowed => None,
    }
}

fn differences(before: &BTreeSet<Arc<str>>, now: &BTreeSet<Arc<str>>) -> Vec<Event> {
    let at = SystemTime::now();
    let gone = before
        .difference(now)
        .map(|key| new_event("device.offline", at, key, ""));
    gone.chain(
        now.difference(before)
            .map(|key| new_event("device.online", at, key, "")),
    )
    .collect()
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

fn client() -> Result<HttpClient> {
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(provider)
        .context("webhook: no certificates of the system")?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// Sends the events of one address, one at a time.
async fn deliver(
    client: HttpClient,
    address: Uri,
    secret: Option<Arc<[u8]>>,
    mut events: mpsc::UnboundedReceiver<Event>,
) {
    let mut queue = VecDeque::new();
    loop {
        if queue.is_empty() {
            match events.recv().await {
                Some(event) => queue.push_back(event),
                None => return,
            }
        }
        let Some(event) = queue.pop_front() else {
            continue;
        };
        let sending = send(&client, &address, secret.as_deref(), &event);
        let mut sending = std::pin::pin!(sending);
        loop {
            tokio::select! {
                () = &mut sending => break,
                Some(event) = events.recv() => {
                    if queue.len() >= QUEUE {
                        queue.pop_front();
                        tracing::warn!(%address, "webhook: an event was given up: {QUEUE} are waiting");
                    }
                    queue.push_back(event);
                }
            }
        }
    }
}

/// Sends an event until it is taken, or given up.
async fn send(client: &HttpClient, address: &Uri, secret: Option<&[u8]>, event: &Event) {
    let id = format!("msg_{}", HEXLOWER.encode(&fastrand::u128(..).to_be_bytes()));
    let Ok(body) = serde_json::to_vec(event) else {
        return;
    };
    let body = Bytes::from(body);
    let mut pause = FIRST_PAUSE;
    for attempt in 1..=ATTEMPTS {
        let request = request(address, secret, &id, body.clone());
        let failure = match request {
            Ok(request) => match timeout(TIMEOUT, client.request(request)).await {
                Ok(Ok(response)) if response.status().is_success() => return,
                Ok(Ok(response)) => {
                    let status = response.status();
                    if is_final(status) {
                        let (kind, key) = (event.kind, &event.data.key);
                        tracing::error!(%address, kind, key, "webhook: refused with {status}");
                        return;
                    }
                    status.to_string()
                }
                Ok(Err(error)) => tunnel_server::Report(&error).to_string(),
                Err(_) => format!("no answer in {TIMEOUT:?}"),
            },
            Err(error) => error.to_string(),
        };
        let (kind, key) = (event.kind, &event.data.key);
        if attempt == ATTEMPTS {
            tracing::error!(%address, kind, key, "webhook: given up after {ATTEMPTS} attempts: {failure}");
            return;
        }
        tracing::info!(%address, kind, key, attempt, "webhook: not taken, again in {pause:?}: {failure}");
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Whether trying again cannot help: the address is wrong.
fn is_final(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::METHOD_NOT_ALLOWED
    )
}

fn request(
    address: &Uri,
    secret: Option<&[u8]>,
    id: &str,
    body: Bytes,
) -> http::Result<Request<Full<Bytes>>> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut request = Request::post(address.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header(
            header::USER_AGENT,
            concat!("tunnel/", env!("CARGO_PKG_VERSION")),
        )
        .header("webhook-id", id)
        .header("webhook-timestamp", now);
    if let Some(secret) = secret {
        request = request.header("webhook-signature", signature(secret, id, now, &body));
    }
    request.body(Full::new(body))
}

fn signature(secret: &[u8], id: &str, timestamp: u64, body: &[u8]) -> String {
    // A key of any length is legal.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        return String::new();
    };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    let mut signature = "v1,".to_owned();
    // Writing to a string does not fail.
    let _ = write!(signature, "{}", BASE64.encode(&mac.finalize().into_bytes()));
    signature
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's documents.
    #[test]
    fn an_event_is_signed_as_the_standard_says() {
        let secret = BASE64
            .decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .expect("base64");
        let signed = signature(
            &secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_was_missed_is_the_difference() {
        let keys = |keys: &[&str]| keys.iter().map(|key| Arc::from(*key)).collect();
        let events = differences(&keys(&["a", "b"]), &keys(&["b", "c"]));
        let events: Vec<_> = events
            .iter()
            .map(|event| (event.kind, event.data.key.as_str()))
            .collect();
        assert_eq!(events, [("device.offline", "a"), ("device.online", "c")]);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for address in ["", "ftp://a.example", "/path"] {
            assert!(
                Webhooks::open(&[address.to_owned()], None).is_err(),
                "{address}"
            );
        }
    }
}
