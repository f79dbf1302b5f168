//! The output of several programs on one terminal, each line with a label.

use std::env;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

/// The prefix that names the program of a line, coloured if the terminal supports it.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The name of the program.
    pub name: &'static str,
    /// The colour of the prefix.
    pub colour: Colour,
}

/// The colour of a label.
#[derive(Clone, Copy, Debug)]
pub enum Colour {
    /// Cyan.
    Cyan,
    /// Green.
    Green,
}

impl Label {
    /// The text before each line.
    fn prefix(self, coloured: bool) -> String {
        let name = self.name;
        match self.colour {
            _ if !coloured => format!("{name} | "),
            Colour::Cyan => format!("\x1b[36m{name} |\x1b[0m "),
            Colour::Green => format!("\x1b[32m{name} |\x1b[0m "),
        }
    }
}

/// Copies `source` to standard output, line by line, until the source ends. `heard` receives a copy
/// of each line.
pub fn copy_lines(
    label: Label,
    source: impl Read + Send + 'static,
    heard: Sender<String>,
) -> JoinHandle<()> {
    let prefix = label.prefix(colours_are_shown());
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        while let Some(line) = next_line(&mut source, &prefix) {
            // Standard output may be closed. The program still runs, so its output must still be
            // read: it would block otherwise.
            let _ = io::stdout().lock().write_all(&line);
            // The receiver may be gone too.
            let _ = heard.send(String::from_utf8_lossy(&line[prefix.len()..]).into_owned());
        }
    })
}

/// Reads `source` line by line until it ends, and shows nothing. `heard` receives each line without
/// its line end.
pub fn take_lines(source: impl Read + Send + 'static, heard: Sender<String>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        while let Some(line) = next_line(&mut source, "") {
            // The receiver may be gone. The output must still be read.
            let _ = heard.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    })
}

/// Reads the next line after its prefix, or `None` at the end.
fn next_line(source: &mut impl BufRead, prefix: &str) -> Option<Vec<u8>> {
    let mut line = prefix.as_bytes().to_vec();
    match source.read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => return None,
        Ok(_) => {}
    }
    if !line.ends_with(b"\n") {
        line.push(b'\n');
    }
    Some(line)
}

fn colours_are_shown() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Colour, Label, next_line};

    const SERVER: Label = Label {
        name: "server",
        colour: Colour::Cyan,
    };

    #[test]
    fn every_line_is_labelled_and_the_last_one_is_ended() {
        let prefix = SERVER.prefix(false);
        let mut source = b"one\n\ntwo" as &[u8];
        let lines: Vec<_> = std::iter::from_fn(|| next_line(&mut source, &prefix)).collect();
        assert_eq!(lines.concat(), b"server | one\nserver | \nserver | two\n");
    }

    #[test]
    fn colour_ends_before_the_line_begins() {
        assert_eq!(SERVER.prefix(true), "\x1b[36mserver |\x1b[0m ");
    }
}
