//! The exact bytes of the wire.
//!
//! The frames that this library sends for a set of calls are compared with recordings, so that no
//! change of the wire goes unnoticed. `BLESS=1` in the environment records them again. Recordings
//! of other implementations are replayed into the state machine.

mod ours;
mod replay;
mod wire;
