//! The suite over tonic's own routing in process: the oracle.

use tunnel_conformance::OraclePath;

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
