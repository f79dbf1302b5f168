//! Golden frames: recordings of the frames of a tunnel, as text.
//!
//! A recording is a list of frames in the order in which they passed, one on a line: the sender,
//! and the bytes of the outer call's message in hexadecimal, without gRPC's five-byte prefix.
//!
//! ```text
//! # A call, from its beginning.
//! caller  0801 1a05 4f00{61*3}  # a description of the frame
//! handler 0801
//! ```
//!
//! - `#` starts a comment. Empty lines and spaces between bytes are ignored.
//! - `{61*300}` is 300 bytes of value 0x61. `{61+*300}` is 300 rising bytes that begin with 0x61,
//!   with 0 after 250.
//!
//! [`read`] parses a recording and [`write()`] formats it in a canonical form, so that a change of
//! the wire format shows as a difference between files. `golden/ours` has the frames of this
//! library; the other directories of `golden/` have those of the library they are named after.

use std::fmt::Write as _;

use bytes::Bytes;
use tunnel_core::frame::codec;
use tunnel_core::{Frame, FrameKind, Side};

/// The minimum length of a run in the short form.
const RUN: usize = 16;

/// The byte that follows in a run of rising bytes, or `None` for bytes above 250. The payloads of
/// the interop peers have this pattern.
fn next_of(byte: u8) -> Option<u8> {
    (byte < 251).then(|| (byte + 1) % 251)
}

/// One frame of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The sender.
    pub from: Side,
    /// The encoded frame.
    pub bytes: Bytes,
}

impl Recorded {
    /// Decodes the frame.
    ///
    /// # Errors
    ///
    /// If the bytes are not a valid frame; the text says why.
    pub fn decode(&self) -> Result<Frame, String> {
        codec::decode(self.from, self.bytes.clone()).map_err(|error| error.to_string())
    }
}

/// Parses a recording.
///
/// # Errors
///
/// If a line is invalid; the text names the line.
///
/// ```
/// use tunnel_conformance::golden::read;
/// let frames = read("caller 08 01 {00*3} # a comment").expect("a recording");
/// assert_eq!(&frames[0].bytes[..], [8, 1, 0, 0, 0]);
/// let rising = read("handler {f9+*4}").expect("a recording");
/// assert_eq!(&rising[0].bytes[..], [249, 250, 0, 1]);
/// assert!(read("somebody 08").is_err());
/// ```
pub fn read(text: &str) -> Result<Vec<Recorded>, String> {
    let lines = text.lines().enumerate();
    let frames = lines.filter_map(|(number, line)| {
        let content = line.split('#').next().unwrap_or_default().trim();
        let frame = (!content.is_empty()).then(|| read_line(content))?;
        Some(frame.map_err(|error| format!("line {}: {error}", number + 1)))
    });
    frames.collect()
}

fn read_line(line: &str) -> Result<Recorded, String> {
    let (from, bytes) = line.split_once(' ').unwrap_or((line, ""));
    let from = match from {
        "caller" => Side::Caller,
        "handler" => Side::Handler,
        other => return Err(format!("{other:?} is neither caller nor handler")),
    };
    let bytes = read_bytes(bytes)?.into();
    Ok(Recorded { from, bytes })
}

fn read_bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(run) = rest.strip_prefix('{') {
            let (run, after) = run.split_once('}').ok_or("a run without its end")?;
            let (byte, count) = run.split_once('*').ok_or("a run without its count")?;
            let count = count.parse().map_err(|_| "a run's count is no number")?;
            match byte.strip_suffix('+') {
                Some(first) => {
                    let rising = std::iter::successors(Some(read_byte(first)?), |&b| next_of(b));
                    bytes.extend(rising.take(count));
                }
                None => bytes.extend(std::iter::repeat_n(read_byte(byte)?, count)),
            }
            rest = after;
        } else {
            let byte = rest.get(..2).ok_or("half a byte at the end")?;
            bytes.push(read_byte(byte)?);
            rest = &rest[2..];
        }
        rest = rest.trim_start();
    }
    Ok(bytes)
}

fn read_byte(text: &str) -> Result<u8, String> {
    u8::from_str_radix(text, 16).map_err(|_| format!("{text:?} is no byte"))
}

/// Formats a recording with a title.
pub fn write(title: &str, frames: &[Recorded]) -> String {
    let mut text = String::new();
    for line in title.lines() {
        let _ = writeln!(text, "# {line}");
    }
    for frame in frames {
        let from = match frame.from {
            Side::Caller => "caller ",
            Side::Handler => "handler",
        };
        let said = frame
            .decode()
            .map_or_else(|error| error, |frame| describe(&frame));
        let _ = writeln!(text, "{from} {}  # {said}", write_bytes(&frame.bytes));
    }
    text
}

fn write_bytes(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Some(&first) = bytes.first() {
        let same = run_len(bytes, |a, b| a == b);
        let rising = run_len(bytes, |a, b| next_of(a) == Some(b));
        let len = same.max(rising);
        let _ = match len {
            RUN.. if same == len => write!(text, "{{{first:02x}*{len}}}"),
            RUN.. => write!(text, "{{{first:02x}+*{len}}}"),
            _ => write!(text, "{first:02x}"),
        };
        bytes = &bytes[if len >= RUN { len } else { 1 }..];
    }
    text
}

/// The length of the run at the start in which each byte follows the previous one by `follows`.
fn run_len(bytes: &[u8], follows: impl Fn(u8, u8) -> bool) -> usize {
    let pairs = bytes.windows(2);
    1 + pairs.take_while(|pair| follows(pair[0], pair[1])).count()
}

/// A short description of a frame.
fn describe(frame: &Frame) -> String {
    let id = frame.stream_id;
    let what = match &frame.kind {
        FrameKind::Settings(settings) => format!("settings {settings:?}"),
        FrameKind::NewStream(new) => format!(
            "new_stream {}, revision {}, window {}, headers {:?}",
            new.method, new.revision, new.initial_window, new.headers
        ),
        FrameKind::Headers(headers) => format!("response_headers {headers:?}"),
        FrameKind::Message { size, data, .. } => format!("message of {size}, first {}", data.len()),
        FrameKind::MoreData(data) => format!("more data, {}", data.len()),
        FrameKind::HalfClose => "half_close".to_owned(),
        FrameKind::Close(close) => format!(
            "close_stream {} {:?}, trailers {:?}",
            close.status.code, close.status.message, close.trailers
        ),
        FrameKind::Cancel => "cancel".to_owned(),
        FrameKind::WindowUpdate(credit) => format!("window_update {credit}"),
        _ => "unknown".to_owned(),
    };
    format!("stream {id}: {what}")
}
