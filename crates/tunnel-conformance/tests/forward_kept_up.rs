//! The suite over a channel that keeps its forward tunnel up.

use tunnel_conformance::ForwardPath;

tunnel_conformance::suite! {
    mod forward_kept_up = ForwardPath::KEPT_UP;
    lacks {
    }
}
