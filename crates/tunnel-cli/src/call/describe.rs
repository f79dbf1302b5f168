//! A symbol as it stands in a .proto file.

use std::fmt::Write as _;

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, ServiceDescriptor,
};

/// The text of a service, a method (`package.Service.Method`, or with a slash), a message or an enumeration.
pub(crate) fn describe(pool: &DescriptorPool, symbol: &str) -> Option<String> {
    if let Some(found) = pool.get_service_by_name(symbol) {
        return Some(format!("{symbol} is a service:\n{}", service(&found)));
    }
    if let Some(found) = pool.get_message_by_name(symbol) {
        return Some(format!("{symbol} is a message:\n{}", message(&found)));
    }
    if let Some(found) = pool.get_enum_by_name(symbol) {
        return Some(format!("{symbol} is an enum:\n{}", enumeration(&found)));
    }
    let found = find_method(pool, symbol)?;
    Some(format!("{symbol} is a method:\n{}", method(&found)))
}

/// The method of `package.Service/Method` or `package.Service.Method`.
pub(crate) fn find_method(pool: &DescriptorPool, name: &str) -> Option<MethodDescriptor> {
    let (service, method) = split_method(name)?;
    let service = pool.get_service_by_name(service)?;
    service.methods().find(|found| found.name() == method)
}

/// The service and the method in `package.Service/Method` or `package.Service.Method`.
pub(crate) fn split_method(name: &str) -> Option<(&str, &str)> {
    let name = name.trim_start_matches('/');
    name.split_once('/').or_else(|| name.rsplit_once('.'))
}

fn service(service: &ServiceDescriptor) -> String {
    let mut text = format!("service {} {{\n", service.name());
    for found in service.methods() {
        let _ = writeln!(text, "  {}", method(&found));
    }
    text + "}"
}

fn method(method: &MethodDescriptor) -> String {
    let stream = |is_stream| if is_stream { "stream " } else { "" };
    format!(
        "rpc {} ( {}.{} ) returns ( {}.{} );",
        method.name(),
        stream(method.is_client_streaming()),
        method.input().full_name(),
        stream(method.is_server_streaming()),
        method.output().full_name(),
    )
}

fn message(message: &MessageDescriptor) -> String {
    let mut text = format!("message {} {{\n", message.name());
    for found in message.fields() {
        match found.containing_oneof() {
            Some(oneof) if !oneof.is_synthetic() => {
                if oneof.fields().next().as_ref() == Some(&found) {
                    let _ = writeln!(text, "  oneof {} {{", oneof.name());
                    for found in oneof.fields() {
                        let _ = writeln!(text, "    {}", field(&found));
                    }
                    text += "  }\n";
                }
            }
            _ => {
                let _ = writeln!(text, "  {}", field(&found));
            }
        }
    }
    text + "}"
}

fn field(field: &FieldDescriptor) -> String {
    let label = match field.cardinality() {
        Cardinality::Repeated if !field.is_map() => "repeated ",
        Cardinality::Required => "required ",
        Cardinality::Optional if field.field_descriptor_proto().proto3_optional() => "optional ",
        _ => "",
    };
    let (name, number) = (field.name(), field.number());
    format!("{label}{} {name} = {number};", kind(&field.kind()))
}

fn kind(of: &Kind) -> String {
    match of {
        Kind::Message(entry) if entry.is_map_entry() => {
            let key = kind(&entry.map_entry_key_field().kind());
            let value = kind(&entry.map_entry_value_field().kind());
            format!("map<{key}, {value}>")
        }
        Kind::Message(message) => format!(".{}", message.full_name()),
        Kind::Enum(enumeration) => format!(".{}", enumeration.full_name()),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn enumeration(enumeration: &EnumDescriptor) -> String {
    let mut text = format!("enum {} {{\n", enumeration.name());
    for value in enumeration.values() {
        let _ = writeln!(text, "  {} = {};", value.name(), value.number());
    }
    text + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(symbol: &str) -> Option<String> {
        let pool = DescriptorPool::decode(tonic_health::pb::FILE_DESCRIPTOR_SET).expect("legal");
        describe(&pool, symbol)
    }

    #[test]
    fn a_symbol_is_described_as_it_stands_in_a_proto_file() {
        let method = "rpc Watch ( .grpc.health.v1.HealthCheckRequest ) returns \
                      ( stream .grpc.health.v1.HealthCheckResponse );";
        for symbol in [
            "grpc.health.v1.Health",
            "grpc.health.v1.Health/Watch",
            "grpc.health.v1.Health.Watch",
        ] {
            let text = described(symbol).expect(symbol);
            assert!(text.contains(method), "{text}");
        }
        assert_eq!(
            described("grpc.health.v1.HealthCheckRequest").as_deref(),
            Some(
                "grpc.health.v1.HealthCheckRequest is a message:\n\
                 message HealthCheckRequest {\n  string service = 1;\n}"
            )
        );
        assert_eq!(described("grpc.health.v1.Nothing"), None);
    }
}
