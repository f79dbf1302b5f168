//! A reverse tunnel of revision one: with flow control, calls of the gateway to the device that dialled.

use tunnel_conformance::ReversePath;

tunnel_conformance::suite! {
    mod reverse_revision_one = ReversePath::REVISION_ONE;
    lacks {
    }
}
