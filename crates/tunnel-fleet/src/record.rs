//! What the directory holds, and where.
//!
//! ```text
//! /tunnel/1/FLEET/n/GATEWAY             = INCARNATION              lease   the name is taken
//! /tunnel/1/FLEET/g/GATEWAY/INCARNATION = GatewayRecord            lease   the gateway lives
//! /tunnel/1/FLEET/k/KEY/GATEWAY         = DeviceRecord                     tunnels of a key
//! /tunnel/1/FLEET/x/KEY                 = OwnerRecord                      who has an exclusive key
//! /tunnel/1/FLEET/deny/KEY              = Denial                           a key that may not connect
//! ```
//!
//! Values are JSON; fields that are not known are ignored, and fields that are missing have their defaults, so that
//! gateways of several versions share a directory. KEY is in base32. A device record has no lease: it counts while
//! the incarnation that it names lives, so that a gateway that crashes costs one change and not one for each device.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A gateway that lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayRecord {
    /// The address of its listener for other gateways, as a URI. None: it cannot be reached by them.
    pub hop: Option<String>,
    /// The addresses where devices reach it, as URIs.
    pub public: Vec<String>,
    /// Its zone. Routes in the same zone are preferred.
    pub zone: Option<String>,
    /// The version of its program.
    pub version: String,
    /// Whether it is about to stop.
    pub draining: bool,
}

/// The tunnels of a key at one gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRecord {
    /// The incarnation of the gateway. The record counts while it lives.
    pub incarnation: String,
    /// The number of tunnels.
    pub tunnels: usize,
    /// When the oldest one was opened, in milliseconds since 1970.
    pub opened_at: u64,
    /// What the device says of itself: its version, labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Who has an exclusive key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnerRecord {
    /// The session of the device: of one start of it.
    pub session: String,
    /// The gateway.
    pub gateway: String,
    /// Its incarnation.
    pub incarnation: String,
    /// When another session lost the key to this one, in milliseconds since 1970.
    pub taken_at: Option<u64>,
}

/// A key that may not connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Denial {
    /// Until when, in milliseconds since 1970. None: until it is allowed.
    pub until: Option<u64>,
    /// Why, for the device and for operators.
    pub reason: String,
    /// Who has denied it.
    pub by: String,
}

impl Denial {
    /// Whether it still holds.
    pub fn holds(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| millis(now) < until)
    }
}

/// Milliseconds since 1970.
pub fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A record as the directory keeps it.
pub(crate) fn encode(record: &impl Serialize) -> Bytes {
    // Cannot fail: the records have string keys only.
    serde_json::to_vec(record).unwrap_or_default().into()
}

/// A record that the directory has. `None` if it makes no sense.
pub(crate) fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

/// The paths of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    prefix: String,
}

/// What a path is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Path<'a> {
    Gateway {
        gateway: &'a str,
        incarnation: &'a str,
    },
    Device {
        key: String,
        gateway: &'a str,
    },
    Owner {
        key: String,
    },
    Denial {
        key: String,
    },
}

impl Paths {
    /// Of a fleet with this name.
    pub(crate) fn new(fleet: &str) -> Self {
        Self {
            prefix: format!("/tunnel/1/{fleet}/"),
        }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn name(&self, gateway: &str) -> String {
        format!("{}n/{gateway}", self.prefix)
    }

    pub(crate) fn gateway(&self, gateway: &str, incarnation: &str) -> String {
        format!("{}g/{gateway}/{incarnation}", self.prefix)
    }

    pub(crate) fn device(&self, key: &str, gateway: &str) -> String {
        format!("{}k/{}/{gateway}", self.prefix, encode_key(key))
    }

    pub(crate) fn owner(&self, key: &str) -> String {
        format!("{}x/{}", self.prefix, encode_key(key))
    }

    pub(crate) fn denial(&self, key: &str) -> String {
        format!("{}deny/{}", self.prefix, encode_key(key))
    }

    /// What a path is of. `None` if this version does not know it.
    pub(crate) fn parse<'a>(&self, path: &'a str) -> Option<Path<'a>> {
        let (kind, rest) = path.strip_prefix(&self.prefix)?.split_once('/')?;
        match kind {
            "g" => {
                let (gateway, incarnation) = rest.split_once('/')?;
                Some(Path::Gateway {
                    gateway,
                    incarnation,
                })
            }
            "k" => {
                let (key, gateway) = rest.split_once('/')?;
                let key = decode_key(key)?;
                Some(Path::Device { key, gateway })
            }
            "x" => Some(Path::Owner {
                key: decode_key(rest)?,
            }),
            "deny" => Some(Path::Denial {
                key: decode_key(rest)?,
            }),
            _ => None,
        }
    }
}

/// A key in a form that is legal in paths and in metadata.
pub(crate) fn encode_key(key: &str) -> String {
    BASE32_NOPAD.encode(key.as_bytes())
}

pub(crate) fn decode_key(encoded: &str) -> Option<String> {
    let key = BASE32_NOPAD.decode(encoded.as_bytes()).ok()?;
    String::from_utf8(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_it_is_of_whatever_the_key() {
        let paths = Paths::new("home");
        for key in ["device-17", "", "a/b", "Ä \n", "g/x"] {
            let path = paths.device(key, "edge-1");
            let of = Path::Device {
                key: key.into(),
                gateway: "edge-1",
            };
            assert_eq!(paths.parse(&path), Some(of));
            let owner = Path::Owner { key: key.into() };
            assert_eq!(paths.parse(&paths.owner(key)), Some(owner));
            let denial = Path::Denial { key: key.into() };
            assert_eq!(paths.parse(&paths.denial(key)), Some(denial));
        }
        let gateway = Path::Gateway {
            gateway: "edge-1",
            incarnation: "7f",
        };
        assert_eq!(paths.parse(&paths.gateway("edge-1", "7f")), Some(gateway));
        for unknown in [
            "/tunnel/1/home2/g/a/b",
            "/tunnel/1/home/z/a",
            "/tunnel/1/home/k/!/a",
        ] {
            assert_eq!(paths.parse(unknown), None);
        }
    }

    #[test]
    fn records_of_other_versions_are_read() {
        let record: GatewayRecord =
            decode(br#"{"hop":"http://a","color":"red"}"#).expect("unknown fields are ignored");
        assert_eq!(record.hop.as_deref(), Some("http://a"));
        let known = DeviceRecord {
            incarnation: "7f".into(),
            tunnels: 2,
            ..DeviceRecord::default()
        };
        assert_eq!(decode(&encode(&known)), Some(known));
        assert_eq!(decode::<Denial>(b"no JSON"), None);
    }

    #[test]
    fn a_denial_holds_until_its_time() {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let mut denial = Denial::default();
        assert!(denial.holds(at(u64::MAX >> 12)));
        denial.until = Some(1000);
        assert!(denial.holds(at(999)) && !denial.holds(at(1000)));
    }
}
