//! What broke tunnels in the field, tried on plain tonic and on tunnels of both directions.
//!
//! Each test puts one load on the three and expects the same of all of them: what plain tonic
//! survives, a tunnel survives. `docs/FIELD.md` lists the rows of the field report with the test
//! that holds each.

mod brownouts;
mod bursts;
mod limits;
mod long_links;
mod standing_still;
mod support;
