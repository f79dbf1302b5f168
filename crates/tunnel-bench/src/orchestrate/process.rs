//! CPU time and resident memory of processes.
//!
//! The source is `/proc`, so on systems other than Linux every result is `None`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Whether the system reports these values.
pub(super) fn tells() -> bool {
    cpu(std::process::id()).is_some()
}

/// The CPU time used by a process. It is exact to the nanosecond if the kernel counts it for each
/// thread, otherwise to a tick of 10 ms. The exact count leaves out threads that have ended; the
/// processes of a pair keep their threads.
pub(super) fn cpu(pid: u32) -> Option<Duration> {
    exact_cpu(pid).or_else(|| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        ticks(&stat).map(|ticks| Duration::from_millis(ticks * 10))
    })
}

fn exact_cpu(pid: u32) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let files = tasks.map(|task| task.map(|t| t.path().join("schedstat")));
    let files: Vec<PathBuf> = files.collect::<Result<_, _>>().ok()?;
    let times = files
        .iter()
        .map(|file| on_cpu(&fs::read_to_string(file).ok()?));
    times.sum::<Option<u64>>().map(Duration::from_nanos)
}

/// The first number of a `schedstat`: nanoseconds on a CPU.
fn on_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// User and system time in a `stat`, in ticks. The process name before them may contain spaces and
/// parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The resident memory of a process, in bytes.
pub(super) fn resident(pid: u32) -> Option<u64> {
    rss(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_name_has_brackets_and_spaces_is_read_right() {
        let stat = "17 (a ) b) S 1 17 17 0 -1 4194304 90 0 0 0 250 31 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(281));
    }

    #[test]
    fn the_first_number_of_schedstat_is_the_time_on_a_cpu() {
        assert_eq!(on_cpu("123456789 42 7\n"), Some(123_456_789));
        assert_eq!(on_cpu(""), None);
    }

    #[test]
    fn resident_memory_is_found_among_the_other_lines() {
        let status = "Name:\tbench\nVmHWM:\t   9000 kB\nVmRSS:\t    2048 kB\nThreads:\t3\n";
        assert_eq!(rss(status), Some(2 << 20));
    }
}
