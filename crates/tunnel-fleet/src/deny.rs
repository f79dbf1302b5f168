//! Keys that may not connect to any gateway of the fleet.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::Request;

use crate::directory::{Committed, DirectoryError, Transaction, Write};
use crate::fleet::Fleet;
use crate::peer::api::peer_client::PeerClient;
use crate::peer::api::{self, DenyRequest};
use crate::record::{Denial, encode};

/// How long another gateway may take to confirm a denial.
const CONFIRM: Duration = Duration::from_secs(1);

/// What a denial has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyReport {
    /// Whether the directory has it, so that gateways that are away now will hear of it. If not, this gateway writes it when
    /// the directory answers.
    pub written: Result<(), DirectoryError>,
    /// The names of the gateways that have not confirmed it.
    pub unconfirmed: Vec<String>,
}

impl Fleet {
    /// Refuses a key in the whole fleet: its tunnels are cut, and new ones refused with PERMISSION_DENIED. The
    /// directory and the other gateways are told at the same time.
    pub async fn deny(&self, key: &str, denial: Denial) -> DenyReport {
        let write = Write::Put {
            key: self.shared().paths.denial(key),
            value: encode(&denial),
            lease: None,
        };
        self.shared().told(key, Some(denial.clone()));
        self.spread(key, write, Some(denial)).await
    }

    /// Ends the denial of a key.
    pub async fn allow(&self, key: &str) -> DenyReport {
        let write = Write::Delete(self.shared().paths.denial(key));
        self.shared().told(key, None);
        self.spread(key, write, None).await
    }

    async fn spread(&self, key: &str, write: Write, denial: Option<Denial>) -> DenyReport {
        let transaction = Transaction {
            conditions: Vec::new(),
            writes: vec![write.clone()],
        };
        let told = DenyRequest {
            denials: vec![api::Denial {
                key: key.to_owned(),
                denied: denial.is_some(),
                until: denial.as_ref().and_then(|denial| denial.until).unwrap_or(0),
                reason: denial
                    .as_ref()
                    .map(|denial| denial.reason.clone())
                    .unwrap_or_default(),
                by: denial.map(|denial| denial.by).unwrap_or_default(),
            }],
        };
        let peers = self.shared().hops.reachable().into_iter();
        let confirmations = peers.map(|(_, name, tunnel)| {
            let mut request = Request::new(told.clone());
            request.set_timeout(CONFIRM);
            async move {
                let answer = PeerClient::new(tunnel).deny(request).await;
                answer.is_ok().then_some(name)
            }
        });
        let (written, confirmed) = futures::join!(
            self.shared().directory.commit(transaction),
            futures::future::join_all(confirmations)
        );
        match written {
            Ok(_) => self.shared().unwritten().remove(key),
            Err(_) => self.shared().unwritten().insert(key.to_owned(), write),
        };
        let confirmed: Vec<Arc<str>> = confirmed.into_iter().flatten().collect();
        let others = self.gateways().into_iter().map(|gateway| gateway.name);
        let mut unconfirmed: Vec<String> = others
            .filter(|name| &**name != self.name() && !confirmed.contains(name))
            .map(|name| name.to_string())
            .collect();
        unconfirmed.dedup();
        let written = written.map(|committed| {
            debug_assert!(matches!(committed, Committed::Done { .. }));
        });
        DenyReport {
            written,
            unconfirmed,
        }
    }

    /// The keys that are denied now.
    pub fn denials(&self) -> Vec<(String, Denial)> {
        self.shared().cache().denials(SystemTime::now())
    }
}
