//! How a client names the key of a call.

use data_encoding::BASE32_NOPAD;
use http::HeaderName;
use http::request::Parts;
use http::uri::Authority;
use tonic::Status;

/// The prefix of a label that is the base32 of a key, for keys that are no DNS labels.
const BASE32_PREFIX: &str = "b32-";

/// Where the key of a call is found.
#[derive(Clone, Debug)]
pub(crate) struct KeyRule {
    metadata: HeaderName,
    /// Lower case, without a dot before it.
    suffix: Option<String>,
}

impl KeyRule {
    /// `suffix` is what stands behind the key in an authority.
    pub(crate) fn new(metadata: &str, suffix: Option<&str>) -> anyhow::Result<Self> {
        let name = metadata.parse();
        Ok(Self {
            metadata: name
                .map_err(|_| anyhow::anyhow!("key-metadata: {metadata:?} is no legal name"))?,
            suffix: suffix.map(|suffix| suffix.trim_start_matches('.').to_ascii_lowercase()),
        })
    }

    /// The key of a call; `None` if the call names none.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT: the key cannot be read.
    pub(crate) fn find(&self, head: &Parts) -> Result<Option<String>, Status> {
        let mut values = head.headers.get_all(&self.metadata).iter();
        if let Some(value) = values.next() {
            if values.next().is_some() {
                let message = format!("there is more than one {} in the metadata", self.metadata);
                return Err(Status::invalid_argument(message));
            }
            let key = value.to_str().ok().filter(|key| !key.is_empty());
            let key = key.ok_or_else(|| {
                Status::invalid_argument(format!("the metadata {} is not a key", self.metadata))
            })?;
            return Ok(Some(key.to_owned()));
        }
        let host = host(head).unwrap_or_default().to_ascii_lowercase();
        let label = self
            .suffix
            .as_ref()
            .and_then(|suffix| host.strip_suffix(suffix.as_str())?.strip_suffix('.'));
        let Some(label) = label.filter(|label| !label.is_empty()) else {
            return Ok(None);
        };
        match label.strip_prefix(BASE32_PREFIX) {
            None => Ok(Some(label.to_owned())),
            Some(encoded) => {
                let key = BASE32_NOPAD
                    .decode(encoded.to_ascii_uppercase().as_bytes())
                    .ok();
                let key = key.and_then(|key| String::from_utf8(key).ok());
                key.map(Some).ok_or_else(|| {
                    Status::invalid_argument(format!(
                        "{encoded:?} in the authority is not the base32 of a key"
                    ))
                })
            }
        }
    }

    /// Whether a call names a key in its metadata.
    pub(crate) fn is_metadata(&self, head: &Parts) -> bool {
        head.headers.contains_key(&self.metadata)
    }

    /// The status of a call that must name a key and does not.
    pub(crate) fn missing(&self) -> Status {
        let mut message = format!(
            "no key: send it in the metadata {:?}",
            self.metadata.as_str()
        );
        match &self.suffix {
            Some(suffix) => message += &format!(", or call the authority KEY.{suffix}"),
            None => {
                message +=
                    " (the authority names none, because the gateway has no --authority-suffix)"
            }
        }
        Status::invalid_argument(message)
    }
}

/// The host that a request names: in its authority, or with HTTP/1.1 in the header `host`.
fn host(head: &Parts) -> Option<String> {
    if let Some(host) = head.uri.host() {
        return Some(host.to_owned());
    }
    let host = head.headers.get(http::header::HOST)?.to_str().ok()?;
    let authority: Authority = host.parse().ok()?;
    Some(authority.host().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(authority: &str, metadata: Option<&str>) -> Result<Option<String>, Status> {
        let rule = KeyRule::new("tunnel-key", Some(".Devices.example")).expect("legal");
        let mut request = http::Request::post(format!("http://{authority}/a/b"));
        if let Some(value) = metadata {
            request = request.header("tunnel-key", value);
        }
        rule.find(&request.body(()).expect("legal").into_parts().0)
    }

    #[test]
    fn a_key_is_named_by_metadata_or_by_the_authority() {
        let found = |authority, metadata| find(authority, metadata).expect("legal");
        assert_eq!(found("any.example", Some("A b")).as_deref(), Some("A b"));
        assert_eq!(
            found("Seven.DEVICES.example:443", None).as_deref(),
            Some("seven")
        );
        assert_eq!(found("x.devices.example", Some("y")).as_deref(), Some("y"));
        assert_eq!(found("devices.example", None), None);
        assert_eq!(found("xdevices.example", None), None);
    }

    #[test]
    fn a_request_of_http_1_names_its_host_in_a_header() {
        let rule = KeyRule::new("tunnel-key", Some("devices.example")).expect("legal");
        let host = |uri: &str| {
            let request = http::Request::post(uri).header("host", "seven.devices.example:80");
            let head = request.body(()).expect("legal").into_parts().0;
            rule.find(&head).expect("legal")
        };
        assert_eq!(host("/a/b").as_deref(), Some("seven"));
        assert_eq!(
            host("http://eight.devices.example/a/b").as_deref(),
            Some("eight")
        );
    }

    #[test]
    fn a_call_for_two_keys_is_refused() {
        let rule = KeyRule::new("tunnel-key", None).expect("legal");
        let request = http::Request::post("/a/b")
            .header("tunnel-key", "a")
            .header("tunnel-key", "b");
        let head = request.body(()).expect("legal").into_parts().0;
        let status = rule.find(&head).expect_err("which?");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn a_key_that_is_no_dns_label_is_named_in_base32() {
        let encoded = BASE32_NOPAD
            .encode("Gerät 7".as_bytes())
            .to_ascii_lowercase();
        let key = find(&format!("b32-{encoded}.devices.example"), None).expect("legal");
        assert_eq!(key.as_deref(), Some("Gerät 7"));
        let status = find("b32-1.devices.example", None).expect_err("not base32");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
}
