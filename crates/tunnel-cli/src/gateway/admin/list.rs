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

/// The place in a list after this key. It is of no use with other filters.
fn token(request: &api::ListRequest, last: &str) -> String {
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
    let size = match usize::try_from(request.page_size) {
        Err(_) => return Err(Status::invalid_argument("page_size: negative")),
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(MAX_PAGE),
    };
    let mut after = place(request)?;
    let denied = deny.by_key();
    let mut devices = Vec::new();
    loop {
        let (chunk, is_last) = chunk(presence, &denied, &after);
        for (key, device) in &chunk {
            let denial = denied.get(&**key);
            let state = view::state(device, denial);
            if !filter.matches(key) || !matches!(wanted, api::State::Unspecified) && state != wanted
            {
                continue;
            }
            if devices.len() == size {
                let last = devices.last().map_or("", |d: &api::Device| d.key.as_str());
                let next_page_token = token(request, last);
                return Ok(api::ListResponse {
                    devices,
                    next_page_token,
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
        next_page_token: String::new(),
    })
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
