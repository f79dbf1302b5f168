//! Support for the programs' tests: runs them, and reads what they say. All of
//! it panics where a test has to fail.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Any free port.
pub const ANY: &str = "127.0.0.1:0";

/// A program that can be started.
#[derive(Clone, Copy, Debug)]
pub struct Program(pub &'static str);

/// A program that runs. It is wanted for as long as its input is open, and killed
/// when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts it.
    pub fn start(self, args: &[&str]) -> Running {
        let mut command = Command::new(self.0);
        command.args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let output = child.stdout.take().expect("it is piped");
        Running {
            input: child.stdin.take(),
            lines: BufReader::new(output).lines(),
            child,
        }
    }

    /// Wants every case to pass through forward tunnels, with options for both ends.
    pub fn expect_forward(self, options: &[&str]) {
        let serve = ["serve-forward", "--address", ANY];
        let mut handler = self.start(&[&serve, options].concat());
        let address = handler.address();
        let call = ["call-forward", "--case", "all", "--address", &address];
        self.expect_all_passed(self.start(&[&call, options].concat()));
        handler.release();
    }

    /// Wants every case to pass through reverse tunnels, with options for both ends.
    pub fn expect_reverse(self, options: &[&str]) {
        let call = ["call-reverse", "--case", "all", "--address", ANY];
        let mut caller = self.start(&[&call, options].concat());
        let address = caller.address();
        let serve = ["serve-reverse", "--again", "--address", &address];
        let mut handler = self.start(&[&serve, options].concat());
        assert_eq!(handler.line(), "CONNECTED");
        self.expect_all_passed(caller);
        handler.release();
    }

    fn expect_all_passed(self, mut caller: Running) {
        let (names, code) = self.start(&["cases"]).finish();
        assert_eq!(code, Some(0));
        assert!(!names.is_empty());
        let mut expected: Vec<_> = names.iter().map(|n| format!("CASE {n} PASS")).collect();
        expected.push("PASS".to_owned());
        let (lines, code) = caller.finish();
        let wrong: Vec<_> = lines.iter().filter(|line| line.contains("FAIL")).collect();
        assert_eq!(lines, expected, "failed: {wrong:#?}");
        assert_eq!(code, Some(0));
    }
}

impl Running {
    /// The next line.
    pub fn line(&mut self) -> String {
        let line = self.lines.next().expect("there is a line");
        line.expect("it is text")
    }

    /// Waits until it listens, and tells where.
    pub fn address(&mut self) -> String {
        let line = self.line();
        let port = line.strip_prefix("LISTENING ").expect("it listens");
        format!("127.0.0.1:{port}")
    }

    /// The rest of the lines, and the exit code.
    pub fn finish(&mut self) -> (Vec<String>, Option<i32>) {
        let lines = self.lines.by_ref().map(|line| line.expect("it is text"));
        let lines = lines.collect();
        let status = self.child.wait().expect("it can be waited for");
        (lines, status.code())
    }

    /// Lets a program that serves go, and wants it to end well.
    pub fn release(mut self) {
        self.input = None;
        assert_eq!(self.finish().1, Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails for one that has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
