//! Gateways and devices that are killed, frozen, restarted one after another, and that all come
//! back at once.
//!
//! Each gateway and device that a test kills has its own runtime, so that a kill takes everything
//! and no goodbye is sent. Tests wait for events. Bounds on times are ten times the promised ones.

mod freezes;
mod front;
mod kills;
mod mass;
mod rolling;
mod support;
