//! The suite over a forward tunnel with flow control (revision one).

use tunnel_conformance::ForwardPath;

tunnel_conformance::suite! {
    mod forward_revision_one = ForwardPath::REVISION_ONE;
    lacks {
    }
}
