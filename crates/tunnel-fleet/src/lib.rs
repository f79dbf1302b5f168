//! Many gateways of gRPC tunnels as one: any of them reaches every device.

pub mod directory;
