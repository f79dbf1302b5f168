//! Numbers, times and tables for people.

use std::io::Write;
use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::age;

/// A number of bytes with a decimal unit: `1.2 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut scaled = bytes as f64;
    let mut units = ["kB", "MB", "GB", "TB", "PB"].iter();
    let mut unit = "B";
    // From 999.95 on, one decimal would round to 1000.0.
    while scaled >= 999.95
        && let Some(next) = units.next()
    {
        (scaled, unit) = (scaled / 1000.0, next);
    }
    match unit {
        "B" => format!("{bytes} B"),
        unit => format!("{scaled:.1} {unit}"),
    }
}

/// A round-trip time: `1.5 ms`.
pub(crate) fn round_trip(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// How long ago a time was; nothing if there is none.
pub(crate) fn age(time: Option<prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| SystemTime::try_from(time).ok());
    time.map(|time| age::short(age::since(time)))
        .unwrap_or_default()
}

/// A duration of a message.
pub(crate) fn duration(duration: Option<prost_types::Duration>) -> Option<Duration> {
    duration.and_then(|duration| duration.try_into().ok())
}

/// A time in the zone of this machine.
pub(crate) fn time(time: Option<prost_types::Timestamp>, format: &str) -> String {
    let time = time.and_then(|time| SystemTime::try_from(time).ok());
    let local = |time: SystemTime| chrono::DateTime::<chrono::Local>::from(time);
    time.map(|time| local(time).format(format).to_string())
        .unwrap_or_default()
}

/// A text of a device, without control characters, which a terminal would obey.
pub(crate) fn clean(text: &str) -> String {
    let printable = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(printable).collect()
}

/// Tells of gateways of the fleet that have not answered; nothing if all have.
pub(super) fn unreachable(names: &[String], out: &mut impl Write) -> std::io::Result<()> {
    match names.is_empty() {
        true => Ok(()),
        false => writeln!(
            out,
            "not reached: {} (what is there is missing)",
            clean(&names.join(", "))
        ),
    }
}

/// A table without lines. Its columns are as wide as their content, so that other programs can read it. Columns with
/// numbers are named, and stand at the right.
pub(super) fn table(header: &[&str], numbers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if numbers.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_keeps_them_short() {
        let numbers = [
            (999, "999 B"),
            (1_234, "1.2 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (u64::MAX, "18446.7 PB"),
        ];
        for (number, text) in numbers {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn a_device_cannot_send_commands_to_the_terminal() {
        assert_eq!(clean("Gerät\u{1b}[2J\n"), "Gerät\\u{1b}[2J\\n");
    }
}
