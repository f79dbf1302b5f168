//! A forward tunnel inside a reverse tunnel.

use tunnel_conformance::NestedPath;

tunnel_conformance::suite! {
    mod forward_in_reverse = NestedPath::ForwardInReverse;
    lacks {
    }
}
