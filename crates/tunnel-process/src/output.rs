//! The lines that a process prints.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;

use flume::Sender;

/// A line of output, without its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The stream that the line was written to.
    pub source: Source,
    /// The text. Bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// An output stream of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The lines of a process that this program also prints itself.
#[derive(Clone, Debug)]
pub enum Show {
    /// None.
    Nothing,
    /// Standard error, to standard error.
    Errors,
    /// All, to standard output, each after this prefix.
    All(String),
}

/// Reads `pipe` line by line in a thread of its own, until it ends.
pub(crate) fn read_lines(
    source: Source,
    pipe: impl Read + Send + 'static,
    show: Show,
    lines: Sender<Line>,
) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        while let Some(text) = next_line(&mut pipe) {
            // The output of this program may be closed. The process still runs, so its output must
            // still be read: it would block otherwise.
            let _ = match (&show, source) {
                (Show::All(prefix), _) => {
                    io::stdout().write_all(format!("{prefix}{text}\n").as_bytes())
                }
                (Show::Errors, Source::Stderr) => {
                    io::stderr().write_all(format!("{text}\n").as_bytes())
                }
                _ => Ok(()),
            };
            // The receiver may be gone too.
            let _ = lines.send(Line { source, text });
        }
    });
}

fn next_line(pipe: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    match pipe.read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => return None,
        Ok(_) => {}
    }
    let text = String::from_utf8_lossy(&line);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Some(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// The number of lines quoted as last words.
const LAST_WORDS: usize = 3;

/// Prefixes of the line that gives the reason of a crash. The backtrace follows that line.
const CRASHES: [&str; 3] = ["panic: ", "fatal error: ", "thread '"];

/// The last lines, or the reason of a crash, on one line. Empty if there is no line.
pub(crate) fn last_words<'a>(said: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<_> = said.map(str::trim).collect();
    let crash = |line: &&str| CRASHES.iter().any(|sign| line.starts_with(sign));
    let words: Vec<_> = match lines.iter().position(crash) {
        Some(crash) => lines.into_iter().skip(crash).take(LAST_WORDS).collect(),
        None => {
            let spoken: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
            spoken[spoken.len().saturating_sub(LAST_WORDS)..].to_vec()
        }
    };
    words.join(" / ")
}

#[cfg(test)]
mod tests {
    use super::{last_words, next_line};

    #[test]
    fn lines_have_no_line_end_and_the_last_one_needs_none() {
        let mut pipe = b"one\n\ntwo\r\nthree" as &[u8];
        let lines: Vec<_> = std::iter::from_fn(|| next_line(&mut pipe)).collect();
        assert_eq!(lines, ["one", "", "two", "three"]);
    }

    #[test]
    fn last_words_are_the_last_lines_that_say_anything() {
        assert_eq!(last_words([].into_iter()), "");
        let said = ["a", "b", "", "  c", "d", ""];
        assert_eq!(last_words(said.into_iter()), "b / c / d");
    }

    #[test]
    fn last_words_of_a_crash_are_those_that_tell_why() {
        let said = [
            "a",
            "panic: too bad",
            "[signal]",
            "goroutine 1:",
            "main.go:1",
        ];
        let words = last_words(said.into_iter());
        assert_eq!(words, "panic: too bad / [signal] / goroutine 1:");
    }
}
