//! The suite over every path, each in a module of its own.
//!
//! One binary for all paths: the tests share nothing, and each binary costs a link.

use tunnel_conformance::{
    ForwardPath, NestedPath, OraclePath, PlainTcpPath, ProxiedPath, ReversePath,
};

// Tonic's own routing in process: the reference for correct behaviour.
tunnel_conformance::suite! {
    mod oracle = OraclePath;
    lacks {
        deadlines: "n/a: tonic's routing does not look at grpc-timeout",
        panics: "n/a: in process a handler's panic is its caller's panic",
        loss: "n/a: in process there is no far end that could die alone",
        cancellation_handle: "n/a: in process the handler reads the cancellation as a clean end",
        detached: "n/a: in process a request stream that outlives its handler is still the caller's own",
    }
}

// Plain tonic on TCP, without a tunnel.
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

// A forward tunnel with flow control (revision one).
tunnel_conformance::suite! {
    mod forward_revision_one = ForwardPath::REVISION_ONE;
    lacks {}
}

// A forward tunnel without flow control (revision zero).
tunnel_conformance::suite! {
    mod forward_revision_zero = ForwardPath::REVISION_ZERO;
    lacks {
        windows: "n/a: revision zero has no windows",
        isolation: "n/a: revision zero has no windows",
    }
}

// A channel that keeps its forward tunnel up.
tunnel_conformance::suite! {
    mod forward_kept_up = ForwardPath::KEPT_UP;
    lacks {}
}

// A forward tunnel whose outer stream is compressed in both directions.
tunnel_conformance::suite! {
    mod forward_compressed = ForwardPath::COMPRESSED;
    lacks {}
}

// A reverse tunnel with flow control (revision one): calls of the gateway to the device that dialled.
tunnel_conformance::suite! {
    mod reverse_revision_one = ReversePath::REVISION_ONE;
    lacks {}
}

// A reverse tunnel without flow control (revision zero).
tunnel_conformance::suite! {
    mod reverse_revision_zero = ReversePath::REVISION_ZERO;
    lacks {
        windows: "n/a: revision zero has no windows",
        isolation: "n/a: revision zero has no windows",
    }
}

// A pool of reverse tunnels. Each call goes to the next tunnel.
tunnel_conformance::suite! {
    mod pool = ReversePath::POOL;
    lacks {}
}

// The pool of one key's reverse tunnels, beside tunnels of other keys.
tunnel_conformance::suite! {
    mod key_pool = ReversePath::KEY_POOL;
    lacks {}
}

// A forward and a reverse tunnel whose own task polls each call first.
tunnel_conformance::suite! {
    mod forward_inline = ForwardPath::INLINE;
    lacks {}
}

tunnel_conformance::suite! {
    mod reverse_inline = ReversePath::INLINE;
    lacks {}
}

// A forward tunnel inside a reverse tunnel.
tunnel_conformance::suite! {
    mod forward_in_reverse = NestedPath::ForwardInReverse;
    lacks {}
}

// A reverse tunnel inside a forward tunnel.
tunnel_conformance::suite! {
    mod reverse_in_forward = NestedPath::ReverseInForward;
    lacks {}
}

// Plain tonic to a gateway, which passes the calls on by key, and plain tonic from the device to its server.
tunnel_conformance::suite! {
    mod proxied_by_key = ProxiedPath;
    lacks {
        deadlines: "n/a: tonic's deadline at both connections stops at the headers and ends as CANCELLED",
        panics: "n/a: hyper resets the stream of a handler that panics: CANCELLED",
        loss: "n/a: a server behind a device is not the far end that could die alone",
        isolation: "n/a: all streams share HTTP/2's connection window, and unread ones use it up",
        responses_alone: "n/a: the stream of the client stays open for the requests",
    }
}
