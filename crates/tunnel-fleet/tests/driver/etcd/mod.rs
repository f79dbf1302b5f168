//! What etcd has to survive, beside the cases for every store.

mod cluster;
mod faults;
mod security;
mod server;
mod space;

pub(crate) use server::Server;
