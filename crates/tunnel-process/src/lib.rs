//! Child processes of tasks, benchmarks, examples and tests.
//!
//! [`Process`] reads a program's output line by line, for blocking and for async code, and keeps
//! the lines for error messages. A process never outlives its [`Process`]: dropping it kills the
//! program. If this program is killed itself, a child with a piped standard input sees its input
//! end, and Ctrl-C at a terminal reaches all children, because they stay in this program's process
//! group.

mod command;
mod ctrl_c;
mod output;
mod process;
mod programs;
mod python;

pub use command::{cargo, expect_success, root, stdout_of};
pub use ctrl_c::{CtrlC, exit_code};
pub use output::{Line, Show, Source};
pub use process::{NoLine, Process, Signal};
pub use programs::{etcd_member, find_program};
pub use python::{has_python, make_python, python_of};
