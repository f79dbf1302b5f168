//! Lists of devices: filters and pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use globset::{Glob, GlobMatcher};
use tonic::Status;

use super::view;
use crate::admin::api;
use crate::gateway::deny::{Denial, DenyList};
use crate::gateway::presence::{Device, Presence};

const DEFAULT_PAGE: usize = 100;
/// Also the most keys of a request.
const MAX_PAGE: usize = 1000;

/// How many devices are looked at under one lock.
const CHUNK: usize = 1000;

/// Which keys match a glob; all, if it is empty.
#[derive(Clone, Debug)]
pub(super) struct Filter(Option<GlobMatcher>);

impl Filter {
    pub(super) fn new(glob: &str) -> Result<Self, Status> {
        if glob.is_empty() {
            return Ok(Self(None));
        }
        let illegal = |error| Status::invalid_argument(format!("filter: {error}"));
        Ok(Self(Some(
            Glob::new(glob).map_err(illegal)?.compile_matcher(),
        )))
    }

    pub(super) fn matches(&self, key: &str) -> bool {
        self.0.as_ref().is_none_or(|glob| glob.is_match(key))
    }
}

/// The most devices of a page.
pub(super) fn size(request: &api::ListRequest) -> Result<usize, Status> {
    match usize::try_from(request.page_size) {
        Err(_) => Err(Status::invalid_argument("page_size: negative")),
        Ok(0) => Ok(DEFAULT_PAGE),
        Ok(size) => Ok(size.min(MAX_PAGE)),
    }
}

/// The place in a list after this key. It is of no use with other filters.
pub(super) fn token(request: &api::ListRequest, last: &str) -> String {
    let place = (&request.filter, request.state, last);
    BASE64URL_NOPAD.encode(&serde_json::to_vec(&place).unwrap_or_default())
}

/// The key after which the page begins.
fn place(request: &api::ListRequest) -> Result<String, Status> {
    if request.page_token.is_empty() {
        return Ok(String::new());
    }
    let place = BASE64URL_NOPAD.decode(request.page_token.as_bytes()).ok();
    let place = place.and_then(|place| serde_json::from_slice(&place).ok());
    let (filter, state, last): (String, i32, String) =
        place.ok_or_else(|| Status::invalid_argument("page_token: not a token of this API"))?;
    if filter != request.filter || state != request.state {
        return Err(Status::invalid_argument(
            "page_token: it is of a list with other filters",
        ));
    }
    Ok(last)
}

/// A page of devices.
pub(super) fn page(
    presence: &Presence,
    deny: &DenyList,
    request: &api::ListRequest,
) -> Result<api::ListResponse, Status> {
    let filter = Filter::new(&request.filter)?;
    let wanted = api::State::try_from(request.state)
        .map_err(|_| Status::invalid_argument("state: unknown"))?;
    let size = size(request)?;
    let mut after = place(request)?;
    let denied = deny.by_key();
    let is_wanted = |key: &str, device: &Device| {
        let is_in_state = || view::state(device, denied.get(key)) == wanted;
        filter.matches(key) && (wanted == api::State::Unspecified || is_in_state())
    };
    let mut devices = Vec::new();
    if !request.keys.is_empty() {
        for (key, device) in some(presence, &denied, &request.keys)? {
            if is_wanted(key, &device) {
                devices.push(view::device(key, &device, denied.get(key)));
            }
        }
        return Ok(api::ListResponse {
            devices,
            ..api::ListResponse::default()
        });
    }
    loop {
        let (chunk, is_last) = chunk(presence, &denied, &after);
        for (key, device) in &chunk {
            let denial = denied.get(&**key);
            if !is_wanted(key, device) {
                continue;
            }
            if devices.len() == size {
                let last = devices.last().map_or("", |d: &api::Device| d.key.as_str());
                let next_page_token = token(request, last);
                return Ok(api::ListResponse {
                    devices,
                    next_page_token,
                    ..api::ListResponse::default()
                });
            }
            devices.push(view::device(key, device, denial));
        }
        match chunk.last_key_value() {
            Some((key, _)) if !is_last => after = key.to_string(),
            _ => break,
        }
    }
    Ok(api::ListResponse {
        devices,
        ..api::ListResponse::default()
    })
}

/// Those of some keys that are known or denied, in order.
fn some<'a>(
    presence: &Presence,
    denied: &BTreeMap<String, Denial>,
    keys: &'a [String],
) -> Result<BTreeMap<&'a str, Device>, Status> {
    if keys.len() > MAX_PAGE {
        return Err(Status::invalid_argument("keys: more than 1000"));
    }
    let known = |key: &'a String| {
        let denied = || denied.contains_key(key).then(Device::default);
        Some((&**key, presence.device(key).or_else(denied)?))
    };
    Ok(keys.iter().filter_map(known).collect())
}

/// The next known devices after a key and the denied keys between them, and whether they are the last ones.
fn chunk(
    presence: &Presence,
    denied: &BTreeMap<String, Denial>,
    after: &str,
) -> (BTreeMap<Arc<str>, Device>, bool) {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let known = presence.devices_after(after, CHUNK);
    let is_last = known.len() < CHUNK;
    let end = match known.last() {
        Some((last, _)) if !is_last => Included(last.to_string()),
        _ => Unbounded,
    };
    let denied = denied.range((Excluded(after.to_owned()), end));
    let denied = denied.map(|(key, _)| (Arc::from(key.as_str()), Device::default()));
    // A key that is denied and known is shown as it is known.
    let chunk = denied.chain(known).collect();
    (chunk, is_last)
}
