//! Finds, starts, watches and stops HAProxy.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use example_support::address::Address;
use tempfile::TempDir;
use tokio::time::timeout;
use tunnel_process::{Process, Show, find_program};

/// How long HAProxy may take to end after its connections broke.
const A_MOMENT: Duration = Duration::from_secs(1);

/// Finds a program: by its path, or by its name as [`find_program`] does.
pub(crate) fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    find_program(program.to_str()?)
}

/// A HAProxy that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Haproxy {
    process: Process,
    address: Address,
    /// Holds the configuration.
    _directory: TempDir,
}

impl Haproxy {
    /// Starts HAProxy on a free port.
    ///
    /// HAProxy inherits the bound port, so no other program can take it. Connections
    /// that come before HAProxy is ready wait for it.
    pub(crate) fn start(program: &Path, config: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("cannot listen on any port for HAProxy")?;
        let address = listener.local_addr()?.to_string().parse()?;
        let directory = tempfile::Builder::new()
            .prefix("load-balancer-")
            .tempdir()
            .context("cannot create a directory for HAProxy's configuration")?;
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, config).context("cannot write HAProxy's configuration")?;
        let mut command = Command::new(program);
        // In the foreground, so that it is the process started here that serves.
        command.arg("-db").arg("-f").arg(file);
        hand_over(listener, &mut command);
        Ok(Self {
            process: Process::start(&mut command, Show::Nothing)?,
            address,
            _directory: directory,
        })
    }

    /// The address it listens on.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until HAProxy ends, which it should not. Returns why.
    pub(crate) async fn ended(&mut self) -> Error {
        match self.process.wait_async().await {
            Ok(status) => self.last_words(status),
            Err(error) => anyhow!("cannot wait for HAProxy: {error}"),
        }
    }

    /// The reason for a failure: that HAProxy ended, if it did. Its connections break
    /// before its end is noticed.
    pub(crate) async fn reason_for(&mut self, failure: Error) -> Error {
        timeout(A_MOMENT, self.ended()).await.unwrap_or(failure)
    }

    /// Stops HAProxy, and returns when it has ended.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.kill().context("cannot stop HAProxy")?;
        Ok(())
    }

    /// HAProxy's exit status and messages, on one line.
    fn last_words(&mut self, status: ExitStatus) -> Error {
        let said = self.process.said().iter();
        let complaints: Vec<_> = complaints(said.map(|line| line.text.as_str())).collect();
        if complaints.is_empty() {
            return anyhow!("HAProxy ended ({status}) and did not say why");
        }
        anyhow!("HAProxy ended ({status}): {}", complaints.join("; "))
    }
}

/// Makes a socket the standard input of a program. A program can inherit its
/// standard input without unsafe code on either side.
#[cfg(unix)]
fn hand_over(listener: TcpListener, command: &mut Command) {
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;

    command.stdin(Stdio::from(OwnedFd::from(listener)));
    // A terminal sends Ctrl-C to its whole process group. In its own group HAProxy
    // goes on until this program stops it.
    command.process_group(0);
}

/// HAProxy does not run on other systems.
#[cfg(not(unix))]
fn hand_over(_: TcpListener, _: &mut Command) {}

/// The lines of a log, without those that only name the program.
fn complaints<'a>(said: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let lines = said.map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("[NOTICE]"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{complaints, find};

    #[test]
    fn a_path_is_taken_as_it_is_and_a_name_is_searched_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let program = directory.path().join("haproxy");
        assert_eq!(find(&program), None);
        fs::write(&program, "").expect("a file");
        assert_eq!(find(&program), Some(program));
        assert_eq!(find(Path::new("no-program-is-named-so")), None);
        #[cfg(unix)]
        assert!(find(Path::new("sh")).is_some_and(|path| path.is_absolute()));
    }

    #[test]
    fn what_haproxy_says_of_itself_is_no_complaint() {
        let log = "[NOTICE]   (7) : haproxy version is 2.6\n\
                   [ALERT]    (7) : config : unknown keyword\n\
                   \n   | and more about it\n";
        assert_eq!(
            complaints(log.lines()).collect::<Vec<_>>(),
            [
                "[ALERT]    (7) : config : unknown keyword",
                "| and more about it"
            ]
        );
    }
}
