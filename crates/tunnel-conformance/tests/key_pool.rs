//! A pool of the reverse tunnels of one key, among those of others.

use tunnel_conformance::ReversePath;

tunnel_conformance::suite! {
    mod key_pool = ReversePath::KEY_POOL;
    lacks {
    }
}
