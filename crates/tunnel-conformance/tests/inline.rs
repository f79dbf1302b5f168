//! The suite over a forward and a reverse tunnel whose own task polls each call first.

use tunnel_conformance::{ForwardPath, ReversePath};

tunnel_conformance::suite! {
    mod forward_inline = ForwardPath::INLINE;
    lacks {
    }
}

tunnel_conformance::suite! {
    mod reverse_inline = ReversePath::INLINE;
    lacks {
    }
}
