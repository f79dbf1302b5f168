//! The suite over plain tonic on TCP, without a tunnel.

use tunnel_conformance::PlainTcpPath;

tunnel_conformance::suite! {
    mod plain_tonic = PlainTcpPath;
    lacks {
        deadlines: "n/a: tonic's deadline stops at the headers and ends as CANCELLED",
        panics: "n/a: hyper resets the stream of a handler that panics: CANCELLED",
        loss: "n/a: tonic calls a dead connection UNKNOWN",
        isolation: "n/a: all streams share HTTP/2's connection window, and unread ones use it up",
        responses_alone: "n/a: the stream stays open for the requests",
        cut_uploads: "n/a: tonic reads a reset request stream as a clean end",
        detached: "n/a: tonic reads a reset request stream as a clean end",
    }
}
