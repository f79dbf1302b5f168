//! Running other programs, shared by the tasks of this repository.
//!
//! [`run`] runs one program and waits for it. [`process`], [`output`] and [`ctrl_c`] run several at
//! once and make sure that all of them end.

pub mod ctrl_c;
pub mod output;
pub mod process;
pub mod run;
