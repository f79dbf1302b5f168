//! The end of a program: its exit code, and how it reports a failure.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use tracing::error;

/// The exit code of a program. A failure is logged, on one line.
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure:#}");
            ExitCode::FAILURE
        }
    }
}

/// The last source of an error.
///
/// tonic's error displays `transport error`. The cause, such as a refused connection,
/// is several sources down.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    match root.downcast_ref::<io::Error>() {
        Some(error) => describe(error),
        None => root.to_string(),
    }
}

/// Describes an I/O error in the standard library's words if it has some:
/// `connection refused`, not `Connection refused (os error 111)`.
pub fn describe(error: &io::Error) -> String {
    let kind = error.kind().to_string();
    let has_words = !matches!(kind.as_str(), "other error" | "uncategorized error");
    if error.raw_os_error().is_some() && has_words {
        return kind;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;

    use super::{describe, root_cause};

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("transport error")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_error_of_the_system_is_put_in_words() {
        let refused = 111;
        let outer = Outer(io::Error::from_raw_os_error(refused));
        assert_eq!(root_cause(&outer), "connection refused");
        let in_use = 98;
        let error = io::Error::from_raw_os_error(in_use);
        assert_eq!(describe(&error), "address in use");
    }

    #[test]
    fn an_error_with_words_of_its_own_keeps_them() {
        let outer = Outer(io::Error::other("no such host"));
        assert_eq!(root_cause(&outer), "no such host");
    }
}
