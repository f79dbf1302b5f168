//! What the tasks of this repository share: running other programs.
//!
//! [`run`] starts one and waits for it; [`process`], [`output`] and [`ctrl_c`]
//! run several at once and see to it that all of them end.

pub mod ctrl_c;
pub mod output;
pub mod process;
pub mod run;
