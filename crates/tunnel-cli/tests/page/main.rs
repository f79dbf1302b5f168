//! The page for operators, in a real browser: what it shows is what the admin API says, and its buttons work.
//!
//! Most tests need Chromium and its driver. Without them they print a note and test nothing. If the environment variable
//! CI is set, they fail.

#[path = "../../src/admin/api.rs"]
mod api;
mod browser;
mod buttons;
mod devices;
mod fleet;
#[path = "../program/fleets.rs"]
mod fleets;
mod looks;
mod picture;
#[path = "../program/programs.rs"]
#[allow(dead_code)]
mod programs;
mod refusals;
mod shows;
mod size;
