//! The generated types have the properties that the workspace relies on.

use std::fmt::Debug;

use bytes::Bytes;
use prost::Message;
use prost_types::{Any, FileDescriptorProto, FileDescriptorSet};

use crate::FILE_DESCRIPTOR_SET;
use crate::google::rpc::Status;
use crate::grpctunnel::v1::{
    ClientToServer, CloseStream, MessageData, Metadata, NewStream, ProtocolRevision,
    ServerToClient, Settings, client_to_server, metadata::Values, server_to_client,
};

fn descriptor_set() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the descriptor set decodes")
}

fn file(name: &str) -> FileDescriptorProto {
    let found = descriptor_set()
        .file
        .into_iter()
        .find(|file| file.name() == name);
    found.unwrap_or_else(|| panic!("the descriptor set lacks {name}"))
}

fn metadata(key: &str, values: &[&str]) -> Metadata {
    let val = values.iter().map(ToString::to_string).collect();
    Metadata {
        md: [(key.to_owned(), Values { val })].into(),
    }
}

fn client_frame(stream_id: i64, frame: client_to_server::Frame) -> ClientToServer {
    ClientToServer {
        stream_id,
        frame: Some(frame),
    }
}

fn server_frame(stream_id: i64, frame: server_to_client::Frame) -> ServerToClient {
    ServerToClient {
        stream_id,
        frame: Some(frame),
    }
}

fn assert_round_trip<M: Message + Default + PartialEq + Debug>(message: &M) {
    let wire = Bytes::from(message.encode_to_vec());
    assert_eq!(M::decode(wire).as_ref(), Ok(message));
}

#[test]
fn the_descriptor_set_names_the_service_and_its_methods() {
    let tunnel = file("grpctunnel/v1/tunnel.proto");
    assert_eq!(tunnel.package(), "grpctunnel.v1");

    let [service] = tunnel.service.as_slice() else {
        panic!("expected one service, found {}", tunnel.service.len());
    };
    assert_eq!(service.name(), "TunnelService");
    let methods: Vec<_> = service
        .method
        .iter()
        .map(|method| {
            assert!(method.client_streaming() && method.server_streaming());
            (method.name(), method.input_type(), method.output_type())
        })
        .collect();
    let (client, server) = (
        ".grpctunnel.v1.ClientToServer",
        ".grpctunnel.v1.ServerToClient",
    );
    assert_eq!(
        methods,
        [
            ("OpenTunnel", client, server),
            ("OpenReverseTunnel", server, client),
        ]
    );
}

#[test]
fn the_descriptor_set_is_complete() {
    for imported in descriptor_set()
        .file
        .iter()
        .flat_map(|file| &file.dependency)
    {
        file(imported);
    }
}

#[test]
fn every_frame_of_the_caller_survives_the_wire() {
    use client_to_server::Frame;
    let frames = [
        Frame::NewStream(NewStream {
            method_name: "/test.EchoService/Echo".to_owned(),
            request_headers: Some(metadata("key", &["one", "two"])),
            initial_window_size: 65_536,
            protocol_revision: ProtocolRevision::RevisionOne.into(),
        }),
        Frame::RequestMessage(MessageData {
            size: 7,
            data: Bytes::from_static(b"abc"),
            ..Default::default()
        }),
        Frame::MoreRequestData(Bytes::from_static(b"defg")),
        Frame::HalfClose(()),
        Frame::Cancel(()),
        Frame::WindowUpdate(u32::MAX),
    ];
    for frame in frames {
        assert_round_trip(&client_frame(i64::MAX, frame));
    }
}

#[test]
fn every_frame_of_the_handler_survives_the_wire() {
    use server_to_client::Frame;
    let detail = Any {
        type_url: "type.googleapis.com/test.Detail".to_owned(),
        value: vec![0, 255],
    };
    let frames = [
        Frame::Settings(Settings {
            supported_protocol_revisions: vec![0, 1],
            initial_window_size: 65_536,
        }),
        Frame::ResponseHeaders(metadata("key-bin", &["\u{0}\u{ff}"])),
        Frame::ResponseMessage(MessageData::default()),
        Frame::MoreResponseData(Bytes::from_static(b"more")),
        Frame::CloseStream(CloseStream {
            response_trailers: Some(metadata("trailer", &[])),
            status: Some(Status {
                code: 5,
                message: "no such thing".to_owned(),
                details: vec![detail],
            }),
        }),
        Frame::WindowUpdate(1),
    ];
    for frame in frames {
        assert_round_trip(&server_frame(-1, frame));
    }
}

#[test]
fn field_numbers_are_those_of_the_protocol() {
    use client_to_server::Frame;
    let frame = Frame::RequestMessage(MessageData {
        size: 1,
        data: Bytes::from_static(b"x"),
        ..Default::default()
    });
    let wire = client_frame(2, frame).encode_to_vec();
    // stream_id = 1: varint 2; request_message = 3: size = 1: 1, data = 2: "x".
    assert_eq!(wire, [0x08, 2, 0x1a, 5, 0x08, 1, 0x12, 1, b'x']);

    let wire = server_frame(2, server_to_client::Frame::WindowUpdate(9)).encode_to_vec();
    assert_eq!(wire, [0x08, 2, 0x38, 9]);
}

#[test]
fn decoded_bytes_share_the_memory_they_came_in() {
    let sent = client_frame(
        1,
        client_to_server::Frame::MoreRequestData(Bytes::from(vec![7; 1024])),
    );
    let wire = Bytes::from(sent.encode_to_vec());
    let received = ClientToServer::decode(wire.clone()).expect("the frame decodes");

    let Some(client_to_server::Frame::MoreRequestData(data)) = received.frame else {
        panic!("another frame than was sent: {received:?}");
    };
    let offset = data.as_ptr() as usize - wire.as_ptr() as usize;
    assert_eq!(offset + data.len(), wire.len());
}

#[test]
fn equal_metadata_has_equal_bytes() {
    let keys: Vec<_> = (0..100).map(|number| format!("key-{number}")).collect();
    let encode = |keys: &mut dyn Iterator<Item = &String>| {
        let md = keys.map(|key| (key.clone(), Values::default())).collect();
        Metadata { md }.encode_to_vec()
    };
    assert_eq!(encode(&mut keys.iter()), encode(&mut keys.iter().rev()));
}
