//! What the user gives: messages as JSON, and headers.

use std::io::{BufReader, Cursor, Read};

use anyhow::{Context, Result, anyhow};
use futures::Stream;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};

/// Where messages are read from: the value of `-d`. `@` and `@-` are the standard input, `@FILE` a file, and
/// anything else the JSON itself.
pub(crate) fn source(data: Option<&str>) -> Result<Box<dyn Read + Send>> {
    Ok(match data {
        None => Box::new(Cursor::new(Vec::new())),
        Some("@" | "@-") => Box::new(std::io::stdin()),
        Some(data) => match data.strip_prefix('@') {
            Some(file) => {
                let opened = std::fs::File::open(file);
                Box::new(opened.with_context(|| format!("cannot read {file}"))?)
            }
            None => Box::new(Cursor::new(data.as_bytes().to_vec())),
        },
    })
}

/// The JSON messages of a source, which stand one behind the other.
pub(crate) fn messages(
    source: impl Read,
    message: MessageDescriptor,
) -> impl Iterator<Item = Result<DynamicMessage>> {
    let values = serde_json::Deserializer::from_reader(BufReader::new(source)).into_iter();
    values.enumerate().map(move |(index, value)| {
        let value: serde_json::Value =
            value.with_context(|| format!("message {} is no JSON", index + 1))?;
        let name = message.full_name();
        DynamicMessage::deserialize(message.clone(), value)
            .map_err(|error| anyhow!("message {} is no {name}: {error}", index + 1))
    })
}

/// The messages of a source as they arrive. The reading thread is not waited for at the end of the program, as one
/// of tokio's would be.
pub(crate) fn stream(
    source: Box<dyn Read + Send>,
    message: MessageDescriptor,
) -> impl Stream<Item = Result<DynamicMessage>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for message in messages(source, message) {
            let failed = message.is_err();
            if sender.blocking_send(message).is_err() || failed {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// Reads headers of the form `name: value`. The value of a name that ends with `-bin` is base64.
pub(crate) fn headers(lines: &[String]) -> Result<MetadataMap> {
    let mut metadata = MetadataMap::new();
    for line in lines {
        let wrong = || anyhow!("-H {line:?}: not 'name: value'");
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if name.ends_with("-bin") {
            let bytes = data_encoding::BASE64.decode(value.as_bytes());
            let bytes = bytes.map_err(|_| anyhow!("-H {line:?}: the value is not base64"))?;
            let name = MetadataKey::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            metadata.append_bin(name, MetadataValue::from_bytes(&bytes));
        } else {
            let name = MetadataKey::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            metadata.append(name, value.parse().map_err(|_| wrong())?);
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::DescriptorPool;

    fn read(json: &str) -> Vec<Result<DynamicMessage>> {
        let pool = DescriptorPool::decode(tonic_health::pb::FILE_DESCRIPTOR_SET).expect("legal");
        let name = "grpc.health.v1.HealthCheckRequest";
        let message = pool.get_message_by_name(name).expect("it is there");
        messages(Cursor::new(json.to_owned()), message).collect()
    }

    #[test]
    fn json_messages_stand_one_behind_the_other() {
        let read = read("{\"service\":\"a}\"}{}\n {\"service\": \"b\"}\n");
        let services = read.iter().map(|message| {
            let message = message.as_ref().expect("legal");
            let service = message.get_field_by_name("service").expect("a field");
            service.as_str().expect("text").to_owned()
        });
        assert_eq!(services.collect::<Vec<_>>(), ["a}", "", "b"]);
        assert!(self::read("").is_empty());
    }

    #[test]
    fn a_wrong_message_is_named_by_its_number() {
        for json in ["{} {\"serviec\":1}", "{} {", "{} \"service\""] {
            let mut read = read(json);
            assert_eq!(read.len(), 2, "{json}");
            let error = read.remove(1).expect_err("wrong").to_string();
            assert!(error.starts_with("message 2 is no "), "{error}");
        }
    }

    #[test]
    fn a_header_is_a_name_a_colon_and_a_value() {
        let lines = ["A: b:c ", "a:d", "x-bin: AQI="].map(str::to_owned);
        let metadata = headers(&lines).expect("legal");
        let values: Vec<_> = metadata.get_all("a").iter().collect();
        assert_eq!(values, ["b:c", "d"]);
        let bytes = metadata.get_bin("x-bin").expect("there").to_bytes();
        assert_eq!(&bytes.expect("legal")[..], [1, 2]);
        for line in ["a", "a b: c", ": c", "x-bin: ?"] {
            assert!(headers(&[line.to_owned()]).is_err(), "{line}");
        }
    }
}
