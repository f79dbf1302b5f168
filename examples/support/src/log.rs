//! Log lines such as `2026-01-14 10:00:00 - INFO - message`, in local time.

use std::fmt;
use std::io;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::MakeWriterExt;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The time format of a line.
pub const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// Starts logging: warnings and errors to standard error, the rest to standard
/// output.
///
/// The example, named by its crate, logs at `info`, the libraries at `warn`.
/// `RUST_LOG` overrides both, as in `RUST_LOG=debug`.
pub fn init(example: &str) {
    let ours = format!("warn,example_support=info,{example}=info");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    let outputs = io::stderr.with_max_level(Level::WARN).or_else(io::stdout);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        // The reader of the output may have gone. That is no error.
        .log_internal_errors(false)
        .event_format(Line)
        .with_writer(outputs)
        .init();
}

/// The format of a line.
#[derive(Clone, Copy, Debug)]
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let time = chrono::Local::now().format(TIME_FORMAT);
        write!(writer, "{time} - {} - ", event.metadata().level())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::{Line, TIME_FORMAT};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(Line)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = buffer.0.lock().expect("no writer panics").clone();
        String::from_utf8(bytes).expect("lines are text")
    }

    #[test]
    fn a_line_is_time_level_and_message() {
        let line = logged(|| tracing::info!("✓ Server listening on port {}", 50051));
        let (time, rest) = line.split_once(" - ").expect("a time comes first");
        chrono::NaiveDateTime::parse_from_str(time, TIME_FORMAT).expect("it is a time");
        assert_eq!(rest, "INFO - ✓ Server listening on port 50051\n");
    }

    #[test]
    fn fields_follow_the_message() {
        let line = logged(|| tracing::warn!(calls = 3, "slow"));
        assert!(line.ends_with(" - WARN - slow calls=3\n"), "{line}");
    }
}
