//! The audit log: a line of JSON for each call that has ended.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tonic::Status;

/// How many bytes may wait to be written before calls are refused.
const MAX_WAITING: usize = 64 << 20;

/// How much is written at once, beside a line.
const MAX_WRITE: usize = 64 << 10;

/// The pause before what could not be written is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How long the last lines may take when the gateway ends.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    /// When the call began, in RFC 3339.
    pub(crate) time: String,
    /// Who has called; null for somebody who was not identified.
    pub(crate) who: Option<&'a str>,
    /// The address of the client.
    pub(crate) peer: Option<String>,
    pub(crate) key: Option<&'a str>,
    pub(crate) method: &'a str,
    /// The name of the status, for example `OK` or `PERMISSION_DENIED`.
    pub(crate) status: &'a str,
    pub(crate) message: &'a str,
    pub(crate) duration_ms: f64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

/// The file. A thread writes it, so that a slow disk stops no call. While the disk does not keep up, or is full, new
/// calls must be refused: see [`check`](Self::check).
#[derive(Debug)]
pub(crate) struct AuditLog {
    /// `None` when the log ends.
    lines: Option<Sender<Vec<u8>>>,
    /// The bytes that are not written yet.
    waiting: Arc<AtomicUsize>,
    max_waiting: usize,
    writer: JoinHandle<()>,
}

impl AuditLog {
    /// Opens the file, to add to it. A new file is readable for its owner and group.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, MAX_WAITING)
    }

    fn open_with(path: &Path, max_waiting: usize) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        let file = options.open(path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let (lines, received) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let written = waiting.clone();
        let writer = std::thread::Builder::new().name("audit log".to_owned());
        let writer = writer.spawn(move || write_all(file, &received, &written))?;
        Ok(Self {
            lines: Some(lines),
            waiting,
            max_waiting,
            writer,
        })
    }

    /// Whether there is room for the line of another call.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE: lines are not written.
    pub(crate) fn check(&self) -> Result<(), Status> {
        match self.waiting.load(Ordering::Relaxed) < self.max_waiting {
            true => Ok(()),
            false => Err(Status::unavailable(
                "the audit log of the gateway cannot be written",
            )),
        }
    }

    /// Writes a line, without waiting for the disk.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let (Some(lines), Ok(mut text)) = (&self.lines, serde_json::to_vec(line)) else {
            return;
        };
        text.push(b'\n');
        self.waiting.fetch_add(text.len(), Ordering::Relaxed);
        // Fails only if the writer has panicked.
        let _ = lines.send(text);
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.lines = None;
        let began = Instant::now();
        while !self.writer.is_finished() && began.elapsed() < LAST_WRITES {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes what is received until the senders have gone. What cannot be written is tried again.
fn write_all(mut file: impl Write, lines: &Receiver<Vec<u8>>, waiting: &AtomicUsize) {
    while let Ok(mut text) = lines.recv() {
        while text.len() < MAX_WRITE
            && let Ok(line) = lines.try_recv()
        {
            text.extend_from_slice(&line);
        }
        let mut rest = &*text;
        let mut failing = false;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => std::thread::sleep(RETRY),
                Ok(written) => {
                    rest = &rest[written..];
                    waiting.fetch_sub(written, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "the audit log cannot be written; trying again");
                    }
                    failing = true;
                    std::thread::sleep(RETRY);
                }
            }
        }
        if failing {
            tracing::info!("the audit log is written again");
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_disk_that_stalls_stops_nobody_and_no_line_is_lost() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("there is mkfifo").success());
        // Nobody reads the pipe at first. It holds 64 KiB.
        let mut pipe = OpenOptions::new().read(true).write(true).open(&path);
        let log = AuditLog::open_with(&path, 100_000).expect("opened");
        let line = Line {
            time: String::new(),
            who: None,
            peer: None,
            key: None,
            method: &"m".repeat(1000),
            status: "OK",
            message: "",
            duration_ms: 1.0,
            bytes_sent: 0,
            bytes_received: 0,
        };
        let length = serde_json::to_vec(&line).expect("legal").len() + 1;
        assert!(log.check().is_ok());
        for _ in 0..300 {
            log.write(&line);
        }
        let status = log.check().expect_err("too much is not written");
        assert_eq!(status.code(), tonic::Code::Unavailable);
        let mut text = vec![0; 300 * length];
        let pipe = pipe.as_mut().expect("opened");
        pipe.read_exact(&mut text).expect("all lines");
        assert!(text.split(|byte| *byte == b'\n').all(|line| {
            line.is_empty() || serde_json::from_slice::<serde_json::Value>(line).is_ok()
        }));
        let began = Instant::now();
        while log.check().is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "still refused");
        }
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        /// Fails at first, and then writes a byte at a time.
        struct Full(bool, Vec<u8>);

        impl Write for &mut Full {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                if !std::mem::replace(&mut self.0, true) {
                    return Err(ErrorKind::StorageFull.into());
                }
                self.1.extend(bytes.first());
                Ok(1)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let (sender, lines) = mpsc::channel();
        let waiting = AtomicUsize::new(4);
        sender.send(b"a\n".to_vec()).expect("there");
        sender.send(b"b\n".to_vec()).expect("there");
        drop(sender);
        let mut file = Full(false, Vec::new());
        write_all(&mut file, &lines, &waiting);
        assert_eq!((&*file.1, waiting.into_inner()), (&b"a\nb\n"[..], 0));
    }
}
