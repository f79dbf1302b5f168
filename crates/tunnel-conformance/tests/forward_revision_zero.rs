//! The suite over a forward tunnel without flow control (revision zero).

use tunnel_conformance::ForwardPath;

tunnel_conformance::suite! {
    mod forward_revision_zero = ForwardPath::REVISION_ZERO;
    lacks {
        windows: "n/a: revision zero has no windows",
        isolation: "n/a: revision zero has no windows",
    }
}
