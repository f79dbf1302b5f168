//! The outputs of several programs on one terminal, each line with a label.

use std::env;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

/// Who wrote a line, in a colour if the terminal shows it.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Who that is.
    pub name: &'static str,
    /// What sets it apart from the others.
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
    /// The label as it stands before each line.
    fn prefix(self, coloured: bool) -> String {
        let name = self.name;
        match self.colour {
            _ if !coloured => format!("{name} | "),
            Colour::Cyan => format!("\x1b[36m{name} |\x1b[0m "),
            Colour::Green => format!("\x1b[32m{name} |\x1b[0m "),
        }
    }
}

/// Copies everything from `source` to our standard output, line by line, until
/// the source ends. `heard` takes a copy of each line.
pub fn copy_lines(
    label: Label,
    source: impl Read + Send + 'static,
    heard: Sender<String>,
) -> JoinHandle<()> {
    let prefix = label.prefix(colours_are_shown());
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        while let Some(line) = next_line(&mut source, &prefix) {
            // Nobody may be reading any more. The program goes on all the same,
            // so its output must still be taken from it.
            let _ = io::stdout().lock().write_all(&line);
            // Nobody may be listening either.
            let _ = heard.send(String::from_utf8_lossy(&line[prefix.len()..]).into_owned());
        }
    })
}

/// Takes everything from `source`, line by line, until it ends, and shows none of
/// it. `heard` takes each line, without its end.
pub fn take_lines(source: impl Read + Send + 'static, heard: Sender<String>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        while let Some(line) = next_line(&mut source, "") {
            // Nobody may be listening any more. The output must still be taken.
            let _ = heard.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    })
}

/// The next line with its prefix, or `None` at the end.
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
