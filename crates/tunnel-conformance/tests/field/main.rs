//! Loads that broke tunnels in the field, on plain tonic and on tunnels of both directions.
//!
//! A test puts the same load on each path and expects the same result: a tunnel survives what plain
//! tonic survives. `docs/FIELD.md` lists the rows of the field report with the test for each.

mod brownouts;
mod bursts;
mod limits;
mod long_links;
mod standing_still;
mod support;
