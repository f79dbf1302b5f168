//! What the system tells of a process: CPU time and resident memory.
//!
//! From `/proc`, so on Linux alone; elsewhere the answer is none.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Whether the system tells.
pub(super) fn tells() -> bool {
    cpu(std::process::id()).is_some()
}

/// CPU time that a process has used up. Exact to the nanosecond where the kernel counts it for each
/// thread, else to its tick of 10 ms. Threads that have ended are left out of the exact count: a
/// pair's threads stay.
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

/// User and system time of a `stat`, in ticks. The name before them may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory in bytes.
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
