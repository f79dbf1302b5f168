//! A reverse tunnel inside a forward tunnel.

use tunnel_conformance::NestedPath;

tunnel_conformance::suite! {
    mod reverse_in_forward = NestedPath::ReverseInForward;
    lacks {
    }
}
