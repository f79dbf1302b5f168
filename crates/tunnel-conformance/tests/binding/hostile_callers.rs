//! Our handler with older or faulty callers.

use tonic::Code;
use tunnel_client::Config;
use tunnel_conformance::Kind;
use tunnel_conformance::proto::Script;
use tunnel_proto::grpctunnel::v1::{
    ClientToServer, MessageData, NewStream, client_to_server, server_to_client,
};

use crate::support::body::message;
use crate::support::peer::{Heard, RawCaller, md};
use crate::support::{Far, assert_usable, client, eventually, guarded};

async fn caller(far: &Far) -> RawCaller {
    RawCaller::negotiated(far.server.channel().await).await
}

fn part(size: u32, data: &'static [u8]) -> client_to_server::Frame {
    let data = data.into();
    client_to_server::Frame::RequestMessage(MessageData {
        size,
        data,
        ..Default::default()
    })
}

/// Checks that the tunnel still carries calls.
async fn assert_goes_on(caller: &mut RawCaller, id: i64) {
    caller.call(id, Kind::Unary.method());
    assert_eq!(caller.expect_close(id).await.0, Code::Ok);
}

/// The status of a tunnel that receives these frames.
async fn ends_with(far: &Far, say: impl FnOnce(&RawCaller)) -> tonic::Status {
    let mut caller = caller(far).await;
    caller.begin(5, Kind::Bidi.method());
    eventually(|| far.handler.kept_calls() > 0).await;
    say(&caller);
    let Heard::Status(status) = caller.expect_end().await else {
        panic!("the outer call ends with a status");
    };
    // Running handlers are dropped although the caller keeps its half open.
    far.no_tunnels().await;
    status
}

/// Revision zero has no settings and no flow control.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_negotiate_is_served_in_revision_zero() {
    guarded(async {
        let far = Far::start().await;
        let mut caller = RawCaller::open(far.server.channel().await, false).await;
        let new = NewStream {
            method_name: Kind::Unary.method().to_owned(),
            ..Default::default()
        };
        caller.frame(1, client_to_server::Frame::NewStream(new));
        // Much more than a window.
        let zeros: &'static [u8] = &[0; 16_384];
        let mut payload = vec![0x0a];
        prost::encode_length_delimiter(1_000_000, &mut payload).expect("room");
        let size = (payload.len() + 1_000_000) as u32;
        let data = payload.into();
        let first = MessageData {
            size,
            data,
            ..Default::default()
        };
        caller.frame(1, client_to_server::Frame::RequestMessage(first));
        let mut left = 1_000_000;
        while left > 0 {
            let more = &zeros[..zeros.len().min(left)];
            left -= more.len();
            caller.frame(1, client_to_server::Frame::MoreRequestData(more.into()));
        }
        caller.frame(1, client_to_server::Frame::HalfClose(()));
        let mut echoed = 0;
        loop {
            let heard = caller.expect_frame().await;
            assert_eq!(heard.stream_id, 1);
            match heard.frame.expect("a kind") {
                server_to_client::Frame::ResponseHeaders(_) => {}
                server_to_client::Frame::ResponseMessage(first) => echoed += first.data.len(),
                server_to_client::Frame::MoreResponseData(more) => echoed += more.len(),
                server_to_client::Frame::CloseStream(close) => {
                    assert_eq!(close.status.unwrap_or_default().code, 0);
                    break;
                }
                other => panic!("revision zero has no {other:?}"),
            }
        }
        assert!(echoed > 1_000_000);
        // Revision one was not negotiated.
        caller.begin(2, Kind::Unary.method());
        assert_eq!(caller.expect_close(2).await.0, Code::InvalidArgument);
    })
    .await;
}

/// The status of the outer call names the broken rule and the stream.
#[tokio::test(flavor = "multi_thread")]
async fn protocol_errors_end_the_tunnel_with_a_status() {
    guarded(async {
        type Fault = fn(&RawCaller);
        let faults: [(&str, Fault); 9] = [
            ("undecodable", |c| c.say_bytes(message(b"\xff\xff\xff"))),
            ("undecodable", |c| {
                c.say_bytes(message(b"not protobuf at all"))
            }),
            ("compressed", |c| c.say_bytes(&b"\x01\0\0\0\x01\x08"[..])),
            ("flags 7", |c| c.say_bytes(&b"\x07\0\0\0\x01\x08"[..])),
            ("limit", |c| c.say_bytes(&b"\0\xff\xff\xff\xff"[..])),
            ("stream 9", |c| {
                c.frame(9, client_to_server::Frame::HalfClose(()))
            }),
            ("stream 5", |c| c.begin(5, "/a/b")),
            ("stream 4", |c| c.begin(4, "/a/b")),
            ("-7", |c| c.begin(-7, "/a/b")),
        ];
        let far = Far::start().await;
        let bystander = far.tunnel().await;
        for (word, fault) in faults {
            let others = far.handler.tunnels().len();
            assert_eq!(others, 1);
            let mut caller = caller(&far).await;
            caller.begin(5, Kind::Bidi.method());
            eventually(|| far.handler.kept_calls() > 0).await;
            fault(&caller);
            let Heard::Status(status) = caller.expect_end().await else {
                panic!("the outer call ends with a status");
            };
            assert_eq!(status.code(), Code::Internal, "{word}: {status:?}");
            assert!(status.message().contains(word), "{word}: {status:?}");
            // The tunnel ends although the caller keeps its half open.
            eventually(|| far.handler.tunnels().len() == others).await;
        }
        assert_usable(&client(&bystander)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_protects_the_tunnel_ends_it_as_resource_exhausted() {
    guarded(async {
        let config = Config::builder().max_empty_frames(10).build();
        let far = Far::start_with(|b| b.config(config.expect("valid")).build()).await;
        let status = ends_with(&far, |caller| {
            for _ in 0..12 {
                let frame = None;
                caller.say(ClientToServer {
                    stream_id: 5,
                    frame,
                });
            }
        })
        .await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    })
    .await;
}

/// An empty name crashes Go's handler.
#[tokio::test(flavor = "multi_thread")]
async fn a_method_may_lack_its_slash_but_not_its_name() {
    guarded(async {
        let far = Far::start().await;
        let mut caller = caller(&far).await;
        caller.begin(1, Kind::Bidi.method());
        let mut id = 1;
        for (method, code) in [
            (Kind::Unary.method().trim_start_matches('/'), Code::Ok),
            ("", Code::InvalidArgument),
            ("/", Code::InvalidArgument),
            ("no-such-method", Code::Unimplemented),
            ("/no.such.Service/Method", Code::Unimplemented),
            ("/with space/and\nline\u{0}é", Code::Unimplemented),
            ("//", Code::Unimplemented),
        ] {
            id += 1;
            caller.call(id, method);
            let (closed, message) = caller.expect_close(id).await;
            assert_eq!(closed, code, "{method:?}: {message}");
            assert_goes_on(&mut caller, id + 1).await;
            id += 1;
        }
        // The first call is not affected.
        caller.frame(1, client_to_server::Frame::HalfClose(()));
        assert_eq!(caller.expect_close(1).await.0, Code::Ok);
        eventually(|| far.handler.kept_calls() == 0).await;
    })
    .await;
}

/// Go's handler ends the whole tunnel at the first such frame.
#[tokio::test(flavor = "multi_thread")]
async fn frames_of_refused_calls_and_skipped_ids_are_ignored() {
    guarded(async {
        let far = Far::start().await;
        let mut caller = caller(&far).await;
        let new = NewStream {
            method_name: Kind::Unary.method().to_owned(),
            protocol_revision: 7,
            ..Default::default()
        };
        caller.frame(10, client_to_server::Frame::NewStream(new));
        assert_eq!(caller.expect_close(10).await.0, Code::InvalidArgument);
        for id in [-1, 0, 3, 9, 10] {
            caller.frame(id, part(4, b"late"));
            caller.frame(id, client_to_server::Frame::MoreRequestData("late".into()));
            caller.frame(id, client_to_server::Frame::WindowUpdate(5));
            caller.frame(id, client_to_server::Frame::HalfClose(()));
            caller.frame(id, client_to_server::Frame::Cancel(()));
        }
        assert_goes_on(&mut caller, 11).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_unknown_kinds_are_ignored() {
    guarded(async {
        let far = Far::start().await;
        let mut caller = caller(&far).await;
        caller.begin(1, Kind::Bidi.method());
        for stream_id in [-1, 0, 1] {
            let frame = None;
            caller.say(ClientToServer { stream_id, frame });
            // A frame with stream id 1 and the unknown field 99 of four bytes.
            caller.say_bytes(message(&[0x08, 1, 0x9a, 0x06, 0x04, 1, 2, 3, 4]));
        }
        caller.frame(1, client_to_server::Frame::HalfClose(()));
        assert_eq!(caller.expect_close(1).await.0, Code::Ok);
        assert_goes_on(&mut caller, 2).await;
    })
    .await;
}

/// Each fault ends only its call, with INVALID_ARGUMENT or the limit's own code. The handler is
/// dropped or never starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_on_one_stream_ends_that_call_alone() {
    guarded(async {
        type Fault = fn(&RawCaller, i64);
        let faults: [(Code, Fault); 6] = [
            (Code::InvalidArgument, |c, id| {
                c.frame(id, part(10, b"half"));
                c.frame(id, client_to_server::Frame::HalfClose(()));
            }),
            (Code::InvalidArgument, |c, id| {
                c.frame(id, part(2, b"more than two"))
            }),
            (Code::InvalidArgument, |c, id| {
                c.frame(id, client_to_server::Frame::HalfClose(()));
                c.frame(id, part(4, b"late"));
            }),
            (Code::OutOfRange, |c, id| {
                c.frame(id, part(1 << 30, b"the first bytes"))
            }),
            (Code::ResourceExhausted, |c, id| {
                for _ in 0..=Config::default().initial_window() / 16_384 {
                    c.frame(id, part(16_384, &[0; 16_384]));
                }
            }),
            (Code::InvalidArgument, |c, id| {
                c.frame(id, client_to_server::Frame::WindowUpdate(u32::MAX));
            }),
        ];
        let far = Far::start().await;
        let mut caller = caller(&far).await;
        let mut id = 1;
        for (code, fault) in faults {
            let script = Script::named("faulty").wait("never").request(());
            let script = script.metadata().get("x-script").expect("a script").clone();
            let script = script.to_str().expect("text").to_owned();
            let new = NewStream {
                method_name: Kind::Bidi.method().to_owned(),
                request_headers: Some(md(&[("x-script", &script)])),
                initial_window_size: 65_536,
                protocol_revision: 1,
            };
            caller.frame(id, client_to_server::Frame::NewStream(new));
            fault(&caller, id);
            let (closed, message) = caller.expect_close(id).await;
            assert_eq!(closed, code, "{message}");
            assert_goes_on(&mut caller, id + 1).await;
            id += 2;
        }
        eventually(|| far.handler.kept_calls() == 0).await;
        let record = far.probe.record("faulty");
        assert_eq!(record.started, record.dropped);
    })
    .await;
}

/// A tunnelled call cannot set headers of the outer connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_s_reserved_metadata_does_not_reach_the_handler() {
    guarded(async {
        let reserved = [
            ("grpc-encoding", "gzip"),
            ("grpc-accept-encoding", "gzip"),
            ("grpc-status", "0"),
            ("te", "gzip"),
            ("host", "elsewhere"),
            ("connection", "close"),
            ("content-type", "text/html"),
            (":path", "/elsewhere"),
            ("bad key", "x"),
            ("x-bad", "line\nbreak"),
        ];
        let far = Far::start().await;
        let mut caller = caller(&far).await;
        let script = Script::named("report").receive_all().report().request(());
        let script = script.metadata().get("x-script").expect("a script").clone();
        let script = script.to_str().expect("text").to_owned();
        let mut entries = vec![("x-script", script.as_str()), ("X-Good", "kept")];
        // An invalid timeout counts as none.
        entries.push(("grpc-timeout", "soon"));
        entries.extend(reserved);
        let new = NewStream {
            method_name: Kind::Unary.method().to_owned(),
            request_headers: Some(md(&entries)),
            initial_window_size: 65_536,
            protocol_revision: 1,
        };
        caller.frame(1, client_to_server::Frame::NewStream(new));
        caller.frame(1, part(0, b""));
        caller.frame(1, client_to_server::Frame::HalfClose(()));
        let report = loop {
            let heard = caller.expect_frame().await;
            if let Some(server_to_client::Frame::ResponseMessage(message)) = heard.frame {
                break <tunnel_conformance::proto::Response as prost::Message>::decode(
                    message.data,
                )
                .expect("a response");
            }
        };
        let key = |key: &str| {
            let mut of_key = report.metadata.iter().filter(move |entry| entry.key == key);
            of_key.next().map(|entry| entry.value.clone())
        };
        assert_eq!(key("x-good").as_deref(), Some(&b"kept"[..]));
        // `te` comes from the handler's own connection, not from the peer.
        assert_eq!(key("te").as_deref(), Some(&b"trailers"[..]));
        for (name, value) in reserved {
            let seen = key(name);
            assert_ne!(seen.as_deref(), Some(value.as_bytes()), "{name}");
        }
        assert_eq!(caller.expect_close(1).await.0, Code::Ok);
    })
    .await;
}

/// A deadline of zero or less has passed on arrival.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_has_passed_on_arrival_is_exceeded_without_a_handler() {
    guarded(async {
        let far = Far::start().await;
        let mut caller = caller(&far).await;
        for (id, timeout) in [(1, "0S"), (2, "-5S"), (3, "1n")] {
            let new = NewStream {
                method_name: Kind::Bidi.method().to_owned(),
                request_headers: Some(md(&[("grpc-timeout", timeout)])),
                initial_window_size: 65_536,
                protocol_revision: 1,
            };
            caller.frame(id, client_to_server::Frame::NewStream(new));
            assert_eq!(caller.expect_close(id).await.0, Code::DeadlineExceeded);
        }
        assert_goes_on(&mut caller, 4).await;
        eventually(|| far.handler.kept_calls() == 0).await;
    })
    .await;
}

/// HTTP/2 allows no mixed-case keys. The tunnel protocol does.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_whose_key_is_in_mixed_case_is_a_deadline() {
    guarded(async {
        let far = Far::start().await;
        let mut caller = caller(&far).await;
        let new = NewStream {
            method_name: Kind::Bidi.method().to_owned(),
            request_headers: Some(md(&[("Grpc-Timeout", "1m")])),
            initial_window_size: 65_536,
            protocol_revision: 1,
        };
        caller.frame(1, client_to_server::Frame::NewStream(new));
        assert_eq!(caller.expect_close(1).await.0, Code::DeadlineExceeded);
        assert_goes_on(&mut caller, 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_is_no_path_is_refused_without_quoting_it() {
    guarded(async {
        let far = Far::start().await;
        let mut caller = caller(&far).await;
        caller.call(1, "/no path\x1b[31m");
        let (code, message) = caller.expect_close(1).await;
        assert_eq!(code, Code::Unimplemented);
        assert_eq!(message, "the call's method is not a path");
        assert_goes_on(&mut caller, 2).await;
    })
    .await;
}
