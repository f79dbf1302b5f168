//! Gateways and devices that are killed, frozen, or restarted one after another, and many devices
//! that reconnect at once.
//!
//! Each gateway and device that a test kills has its own runtime, so that a kill stops everything
//! without a goodbye. Tests wait for events. Bounds on times are ten times the promised ones.

mod freezes;
mod front;
mod kills;
mod mass;
mod rolling;
mod support;
