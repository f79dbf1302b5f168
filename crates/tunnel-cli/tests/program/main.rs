//! The program `tunnel`, as processes: clients call through a gateway and an agent.

mod abuse;
mod calls;
mod conformance;
mod errors;
mod faults;
mod fleet;
mod fleets;
mod identity;
mod limits;
mod operators;
mod packaging;
mod programs;
mod rotation;
mod shapes;
mod systemd;
mod tcp;
mod web;
