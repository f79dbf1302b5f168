//! What the command line has beyond that of the other peers.

use clap::Subcommand;
use interop_peer::options::{End, Key, Opening, Trial};
use tonic::Status;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

use crate::GrpcInterop;

/// How to run the channel battery.
#[derive(Debug, Subcommand)]
pub(crate) enum Battery {
    /// Run the channel battery through forward tunnels.
    BatteryForward {
        #[command(flatten)]
        opening: Opening<GrpcInterop>,
        #[command(flatten)]
        end: End,
        #[command(flatten)]
        trial: Trial,
    },
    /// Run the channel battery through reverse tunnels.
    BatteryReverse {
        #[command(flatten)]
        end: End,
        #[command(flatten)]
        trial: Trial,
    },
}

/// One thing in the metadata, which is text.
#[derive(Clone, Debug)]
pub(crate) struct Entry(AsciiMetadataKey, AsciiMetadataValue);

impl Key for Entry {
    fn new(name: &str, value: &str) -> Result<Self, String> {
        let key = name
            .parse()
            .map_err(|_| format!("{name:?} is no name of text"))?;
        let value = value
            .parse()
            .map_err(|_| format!("{value:?} cannot be sent"))?;
        Ok(Self(key, value))
    }

    fn append_to(&self, metadata: &mut MetadataMap) -> Result<(), Status> {
        let Self(key, value) = self;
        metadata.append(key, value.clone());
        Ok(())
    }
}
