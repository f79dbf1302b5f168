//! Devices: servers of reverse tunnels that dial their gateways and reconnect.
//!
//! The conformance suite tests calls. These tests cover how tunnels begin, end and are replaced.
//! They wait for events, not for time. Tests of backoff use virtual time ([`virtual_time`]).

mod addresses;
mod credentials;
mod dns;
mod drain;
mod fallback;
mod gateways;
mod instances;
mod keepalive;
mod nothing_left;
mod pings;
mod ready;
mod retry;
mod returns;
mod seen;
mod serve;
mod several;
mod siblings;
mod support;
mod tls;
mod virtual_time;
mod watch;
