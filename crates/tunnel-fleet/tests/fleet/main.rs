//! A fleet of gateways in one process, each with a runtime of its own, over real connections and a directory in memory.

mod calls;
mod denied;
mod exclusive;
mod membership;
mod support;
mod without_directory;
