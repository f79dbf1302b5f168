//! Gateways and devices through everything that happens to them in production: they are killed,
//! frozen, restarted one after the other, and all come back at once.
//!
//! Each gateway and each device that is to be killed has a runtime of its own, so that a kill takes
//! everything and says no goodbye. Tests wait for events; where they look at a time at all, the
//! bound is an order of magnitude above what is promised.

mod freezes;
mod front;
mod kills;
mod mass;
mod rolling;
mod support;
