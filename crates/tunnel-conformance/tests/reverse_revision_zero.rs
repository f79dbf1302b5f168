//! The suite over a reverse tunnel without flow control (revision zero).

use tunnel_conformance::ReversePath;

tunnel_conformance::suite! {
    mod reverse_revision_zero = ReversePath::REVISION_ZERO;
    lacks {
        windows: "n/a: revision zero has no windows",
        isolation: "n/a: revision zero has no windows",
    }
}
