//! Reading everything under a prefix, in pages.

use bytes::Bytes;

use super::client::{Client, Repeat};
use super::endpoints::Connection;
use super::entry::entry;
use super::failure::Failure;
use super::proto::etcdserverpb::kv_client::KvClient;
use super::proto::etcdserverpb::{RangeRequest, RangeResponse};
use crate::directory::Entry;

/// The most entries of a page.
const PAGE: i64 = 5_000;

/// The keys with a prefix, as a range from `key` to before `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyRange {
    pub(super) key: Bytes,
    pub(super) end: Bytes,
}

impl KeyRange {
    pub(super) fn of_prefix(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        // The bytes of UTF-8 stay below 0xff, so this does not overflow.
        match end.last_mut() {
            Some(last) => *last += 1,
            // From the first key there can be to the last.
            None => {
                let zero = Bytes::from_static(&[0]);
                return Self {
                    key: zero.clone(),
                    end: zero,
                };
            }
        }
        Self {
            key: prefix.to_owned().into(),
            end: end.into(),
        }
    }
}

/// All entries of a range, and the revision at which they were read.
pub(super) async fn read_all(
    client: &Client,
    range: &KeyRange,
) -> Result<(Vec<Entry>, u64), Failure> {
    let mut request = RangeRequest {
        key: range.key.clone(),
        range_end: range.end.clone(),
        limit: PAGE,
        ..RangeRequest::default()
    };
    let mut entries = Vec::new();
    loop {
        let page = read(client, &request).await?;
        if request.revision == 0 {
            request.revision = revision(&page);
        }
        let next = page.kvs.last().map(|last| after(&last.key));
        entries.extend(page.kvs.into_iter().filter_map(entry));
        match next {
            Some(next) if page.more => request.key = next,
            _ => return Ok((entries, request.revision as u64)),
        }
    }
}

/// The newest revision of the store. A member that cannot reach the others cannot tell.
pub(super) async fn newest_revision(client: &Client, range: &KeyRange) -> Result<u64, Failure> {
    // Within the range, since a role may allow no other keys.
    let request = RangeRequest {
        key: range.key.clone(),
        range_end: range.end.clone(),
        limit: 1,
        keys_only: true,
        ..RangeRequest::default()
    };
    Ok(revision(&read(client, &request).await?) as u64)
}

async fn read(client: &Client, request: &RangeRequest) -> Result<RangeResponse, Failure> {
    let send = |connection: Connection, request| async move {
        let client = KvClient::new(connection.channel);
        // A page of large values may be larger than tonic's limit for a message.
        let mut client = client.max_decoding_message_size(usize::MAX);
        Ok(client.range(request).await?.into_inner())
    };
    client.call(Repeat::Allowed, request.clone(), send).await
}

fn revision(response: &RangeResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

/// The first key after a key.
fn after(key: &[u8]) -> Bytes {
    let mut after = key.to_vec();
    after.push(0);
    after.into()
}

#[cfg(test)]
mod tests {
    use super::KeyRange;

    #[test]
    fn the_range_of_a_prefix_ends_where_the_prefix_does() {
        let range = KeyRange::of_prefix("/a/");
        assert_eq!((&range.key[..], &range.end[..]), (&b"/a/"[..], &b"/a0"[..]));
        let range = KeyRange::of_prefix("\u{10ffff}");
        assert_eq!(&range.end[..], [0xf4, 0x8f, 0xbf, 0xc0]);
        let range = KeyRange::of_prefix("");
        assert_eq!((&range.key[..], &range.end[..]), (&[0][..], &[0][..]));
    }
}
