//! Loads that broke tunnels in the field, on plain tonic and on tunnels of both directions.
//!
//! Each test puts the same load on all three and expects the same result: a tunnel survives what
//! plain tonic survives. `docs/FIELD.md` lists the rows of the field report with the test
//! that holds each.

mod brownouts;
mod bursts;
mod limits;
mod long_links;
mod standing_still;
mod support;
