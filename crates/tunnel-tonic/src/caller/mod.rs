//! The caller: the end of a tunnel that makes calls.

mod body;
mod call;
mod channel;
mod guard;
mod handle;
mod head;
mod pump;
mod queue;

pub use body::ResponseBody;
pub use call::ResponseFuture;
pub use channel::TunnelChannel;
pub use head::CallHead;
