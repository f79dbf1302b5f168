//! The encoder: from a borrowed frame to its bytes.
//!
//! Every message on the wire is preceded by its length, so a frame is first measured
//! ([`Prepared::new`]) and then written. Lengths of whole metadata and statuses are kept from the
//! first walk for the second; those of single entries are computed twice, which costs less than
//! storing them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use bytes::{BufMut, BytesMut};

use super::super::{FrameKindRef, FrameRef, Settings};
use super::field_of;
use super::wire::{
    delimited_len, int32, integer_len, nonempty_len, nonzero_len, put_bytes, put_integer,
    put_length, put_nonempty, put_nonzero, put_varint, varint_len,
};
use crate::metadata::{Metadata, Run};
use crate::{Code, Side, Status, StatusDetail};

/// Up to this many runs of equal keys are compared with each other. More runs are hashed.
const FEW_RUNS: usize = 16;

/// A frame, measured.
///
/// Invariant: `body_len` is the encoded size of `body` without the key and the length of its
/// `oneof` member.
pub(in super::super) struct Prepared<'a> {
    stream_id: i64,
    /// The number of the member of the message's `oneof`.
    member: u32,
    body: Body<'a>,
    body_len: usize,
}

enum Body<'a> {
    Empty,
    Bytes(&'a [u8]),
    WindowUpdate(u32),
    Message {
        size: u32,
        data: &'a [u8],
        compressed: bool,
    },
    Metadata(Cow<'a, Metadata>),
    NewStream {
        method: &'a str,
        headers: Cow<'a, Metadata>,
        headers_len: usize,
        initial_window: u32,
        revision: i32,
    },
    Close {
        trailers: Cow<'a, Metadata>,
        trailers_len: usize,
        status: &'a Status,
        /// Zero is not encoded.
        status_len: usize,
    },
    Settings {
        settings: &'a Settings,
        revisions_len: usize,
    },
}

impl<'a> Prepared<'a> {
    /// Measures a frame; `None` where `from` cannot send its kind.
    pub(in super::super) fn new(from: Side, frame: &FrameRef<'a>) -> Option<Self> {
        let member = field_of(from, &frame.kind)?;
        let (body, body_len) = match frame.kind {
            FrameKindRef::HalfClose | FrameKindRef::Cancel => (Body::Empty, 0),
            FrameKindRef::MoreData(data) => (Body::Bytes(data), data.len()),
            FrameKindRef::WindowUpdate(n) => (Body::WindowUpdate(n), varint_len(n.into())),
            FrameKindRef::Message {
                size,
                data,
                compressed,
            } => (
                Body::Message {
                    size,
                    data,
                    compressed,
                },
                nonzero_len(size.into()) + nonempty_len(data) + nonzero_len(compressed.into()),
            ),
            FrameKindRef::Headers(md) => {
                let md = joined(md);
                let len = metadata_len(&md);
                (Body::Metadata(md), len)
            }
            FrameKindRef::NewStream {
                method,
                headers,
                initial_window,
                revision,
            } => {
                let headers = joined(headers);
                let headers_len = metadata_len(&headers);
                let len = nonempty_len(method.as_bytes())
                    + delimited_len(headers_len)
                    + nonzero_len(initial_window.into())
                    + nonzero_len(int32(revision));
                let body = Body::NewStream {
                    method,
                    headers,
                    headers_len,
                    initial_window,
                    revision,
                };
                (body, len)
            }
            FrameKindRef::Close { trailers, status } => {
                let trailers = joined(trailers);
                let trailers_len = metadata_len(&trailers);
                let status_len = status_len(status);
                let part = |len| if len == 0 { 0 } else { delimited_len(len) };
                let len = part(trailers_len) + part(status_len);
                let body = Body::Close {
                    trailers,
                    trailers_len,
                    status,
                    status_len,
                };
                (body, len)
            }
            FrameKindRef::Settings(settings) => {
                let revisions = settings.revisions.iter();
                let revisions_len = revisions.map(|&r| varint_len(int32(r))).sum();
                let packed = match revisions_len {
                    0 => 0,
                    len => delimited_len(len),
                };
                let len = packed + nonzero_len(settings.initial_window.into());
                let body = Body::Settings {
                    settings,
                    revisions_len,
                };
                (body, len)
            }
        };
        Some(Self {
            stream_id: frame.stream_id.value(),
            member,
            body,
            body_len,
        })
    }

    /// How many bytes [`write`](Self::write) will append.
    pub(in super::super) fn len(&self) -> usize {
        let member = match self.body {
            Body::WindowUpdate(n) => integer_len(n.into()),
            _ => delimited_len(self.body_len),
        };
        nonzero_len(self.stream_id as u64) + member
    }

    /// Appends the frame.
    pub(in super::super) fn write(&self, buf: &mut BytesMut) {
        put_nonzero(buf, 1, self.stream_id as u64);
        if let Body::WindowUpdate(n) = self.body {
            put_integer(buf, self.member, n.into());
            return;
        }
        put_length(buf, self.member, self.body_len);
        match &self.body {
            // A window update was written above. It is the only member without a length.
            Body::Empty | Body::WindowUpdate(_) => {}
            Body::Bytes(data) => buf.put_slice(data),
            Body::Message {
                size,
                data,
                compressed,
            } => {
                put_nonzero(buf, 1, (*size).into());
                put_nonempty(buf, 2, data);
                put_nonzero(buf, 3, (*compressed).into());
            }
            Body::Metadata(md) => put_metadata(buf, md),
            Body::NewStream {
                method,
                headers,
                headers_len,
                initial_window,
                revision,
            } => {
                put_nonempty(buf, 1, method.as_bytes());
                put_length(buf, 2, *headers_len);
                put_metadata(buf, headers);
                put_nonzero(buf, 3, (*initial_window).into());
                put_nonzero(buf, 4, int32(*revision));
            }
            Body::Close {
                trailers,
                trailers_len,
                status,
                status_len,
            } => {
                if *trailers_len > 0 {
                    put_length(buf, 1, *trailers_len);
                    put_metadata(buf, trailers);
                }
                if *status_len > 0 {
                    put_length(buf, 2, *status_len);
                    put_status(buf, status);
                }
            }
            Body::Settings {
                settings,
                revisions_len,
            } => {
                if *revisions_len > 0 {
                    put_length(buf, 1, *revisions_len);
                    for &revision in &settings.revisions {
                        put_varint(buf, int32(revision));
                    }
                }
                put_nonzero(buf, 2, settings.initial_window.into());
            }
        }
    }
}

/// The length of a status without its key; zero for success without a message.
fn status_len(status: &Status) -> usize {
    nonzero_len(int32(status.code.to_wire()))
        + nonempty_len(status.message.as_bytes())
        + status
            .details
            .iter()
            .map(|detail| delimited_len(detail_len(detail)))
            .sum::<usize>()
}

fn detail_len(detail: &StatusDetail) -> usize {
    nonempty_len(detail.type_url.as_bytes()) + nonempty_len(&detail.value)
}

fn put_status(buf: &mut BytesMut, status: &Status) {
    if status.code != Code::Ok {
        put_integer(buf, 1, int32(status.code.to_wire()));
    }
    put_nonempty(buf, 2, status.message.as_bytes());
    for detail in &status.details {
        put_length(buf, 3, detail_len(detail));
        put_nonempty(buf, 1, detail.type_url.as_bytes());
        put_nonempty(buf, 2, &detail.value);
    }
}

/// The length of a map entry, and of the values in it. The encoded values are never empty, so only
/// an empty key is left out.
fn entry_len(run: Run<'_>) -> (usize, usize) {
    let values = run.values().map(|value| delimited_len(value.len())).sum();
    (nonempty_len(run.key()) + delimited_len(values), values)
}

/// The length of metadata whose keys are [`joined`].
fn metadata_len(md: &Metadata) -> usize {
    md.runs().map(|run| delimited_len(entry_len(run).0)).sum()
}

/// Writes metadata whose keys are [`joined`].
fn put_metadata(buf: &mut BytesMut, md: &Metadata) {
    for run in md.runs() {
        let (entry_len, values_len) = entry_len(run);
        put_length(buf, 1, entry_len);
        put_nonempty(buf, 1, run.key());
        put_length(buf, 2, values_len);
        for value in run.values() {
            put_bytes(buf, 1, value);
        }
    }
}

/// The metadata with the values of each key side by side. It is unchanged if no key is repeated
/// later, as nearly always.
fn joined(md: &Metadata) -> Cow<'_, Metadata> {
    if keys_come_back(md) {
        Cow::Owned(join(md))
    } else {
        Cow::Borrowed(md)
    }
}

fn keys_come_back(md: &Metadata) -> bool {
    let mut seen: [(u64, &[u8]); FEW_RUNS] = [(0, b""); FEW_RUNS];
    let mut keys = md.runs().map(|run| run.key());
    for (i, key) in keys.by_ref().take(FEW_RUNS).enumerate() {
        let tail = tail(key);
        if seen[..i].iter().any(|&(t, k)| t == tail && k == key) {
            return true;
        }
        seen[i] = (tail, key);
    }
    let Some(next) = keys.next() else {
        return false;
    };
    let mut seen: HashSet<&[u8]> = seen.iter().map(|&(_, key)| key).collect();
    !seen.insert(next) || keys.any(|key| !seen.insert(key))
}

/// The last bytes of a key, where keys differ most often, as one number.
fn tail(key: &[u8]) -> u64 {
    match key.last_chunk() {
        Some(tail) => u64::from_le_bytes(*tail),
        None => key
            .iter()
            .fold(0, |tail, &byte| tail << 8 | u64::from(byte)),
    }
}

fn join(md: &Metadata) -> Metadata {
    let mut places = HashMap::new();
    let mut entries = Vec::with_capacity(md.len());
    for (key, value) in md {
        let next = places.len();
        entries.push((*places.entry(key).or_insert(next), key, value));
    }
    // The sort is stable, so the values of a key keep their order.
    entries.sort_by_key(|(place, ..)| *place);
    let entries = entries.into_iter().map(|(_, key, value)| (key, value));
    entries.collect()
}
