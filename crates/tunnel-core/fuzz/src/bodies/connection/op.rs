//! The operations, by number, in the lowest seven bits of a byte. With two ends the highest bit
//! chooses the end: clear is the caller. A number keeps its meaning, or kept inputs lose theirs:
//! new ones go to the end, before [`COUNT`].

/// One end: a frame of the peer: two bytes of length, and its bytes. Ignored if they are none.
pub(crate) const RAW: u8 = 0;
/// One end: a frame of the peer, made up: its kind, its stream, and what the kind needs.
pub(crate) const FRAME: u8 = 1;
/// Caller: opens a call; which headers.
pub(crate) const OPEN: u8 = 2;
/// Sends a message: a call, two bytes of length.
pub(crate) const MESSAGE: u8 = 3;
/// Begins a message: a call, two bytes of length.
pub(crate) const BEGIN: u8 = 4;
/// Adds to the message begun: a call, two bytes of length.
pub(crate) const WRITE: u8 = 5;
/// Caller: half-closes. Handler: closes. A call; a handler: the code, and which trailers.
pub(crate) const FINISH: u8 = 6;
/// Handler: sends headers: a call, and which.
pub(crate) const HEADERS: u8 = 7;
/// Reads: a call, and how often.
pub(crate) const READ: u8 = 8;
/// Caller: takes headers: a call.
pub(crate) const TAKE_HEADERS: u8 = 9;
/// Caller: cancels. Handler: resets. A call; a handler: the code.
pub(crate) const ABANDON: u8 = 10;
/// Writes frames: a budget.
pub(crate) const TRANSMIT: u8 = 11;
/// Lets time pass, at both ends: milliseconds.
pub(crate) const PASS: u8 = 12;
/// Drains: milliseconds to its deadline, none for 0.
pub(crate) const DRAIN: u8 = 13;
/// One end: ends the tunnel: how. Nothing for most bytes, or few inputs would get far.
pub(crate) const END: u8 = 14;
/// Asks whether a call is writable: a call.
pub(crate) const WRITABLE: u8 = 15;
/// Reads all calls until nothing is left to read.
pub(crate) const READ_ALL: u8 = 16;
/// Two ends: delivers frames of an end: how many.
pub(crate) const CARRY: u8 = 17;
/// Two ends: both write and receive until nothing moves.
pub(crate) const PUMP: u8 = 18;
/// Sends a message as a body: a call, two bytes of length. An odd length is compressed, where both
/// ends accept that.
pub(crate) const BODY: u8 = 19;

pub(crate) const COUNT: u8 = 20;
