//! A pool of reverse tunnels: each call goes to the next one.

use tunnel_conformance::ReversePath;

tunnel_conformance::suite! {
    mod pool = ReversePath::POOL;
    lacks {
    }
}
