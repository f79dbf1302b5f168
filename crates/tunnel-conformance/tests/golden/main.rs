//! The exact bytes of the wire.
//!
//! What we send for a set of calls is compared with recordings: a change of the wire cannot
//! pass unseen. With `BLESS=1` in the environment the recordings are made anew, and the change
//! shows as a difference of files. What other speakers of the protocol were seen to say is
//! replayed into the state machine.

mod ours;
mod replay;
mod wire;
