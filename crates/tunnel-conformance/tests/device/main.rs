//! Devices: servers of reverse tunnels that dial their gateways, and keep dialling them.
//!
//! What calls do in such tunnels is the suite's business. Here it is how tunnels begin, end and
//! are replaced. Tests wait for events and never for time, with small waits in the settings;
//! where it matters how long a wait is, time is virtual ([`virtual_time`]).

mod credentials;
mod drain;
mod fallback;
mod keepalive;
mod nothing_left;
mod pings;
mod retry;
mod serve;
mod several;
mod support;
mod tls;
mod virtual_time;
mod watch;
