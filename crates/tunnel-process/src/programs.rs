//! Programs that are installed, and etcd among them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directories of daemons. The `PATH` of a normal user often lacks them.
const DIRECTORIES: [&str; 2] = ["/usr/local/sbin", "/usr/sbin"];

/// The path of an installed program, by its name: on the search path, or where packages put daemons.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
    let mut programs = directories.map(|directory| directory.join(name));
    programs.find(|program| program.is_file())
}

/// The command that starts a member of a cluster of etcd. `clients` and `peers` are its URLs, and `cluster` is
/// `NAME=PEERS` of each member, separated by commas. More options may be added.
pub fn etcd_member(
    program: &Path,
    name: &str,
    data: &Path,
    clients: &str,
    peers: &str,
    cluster: &str,
) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command.arg("--data-dir").arg(data);
    for (flag, value) in [
        ("--name", name),
        ("--listen-client-urls", clients),
        ("--advertise-client-urls", clients),
        ("--listen-peer-urls", peers),
        ("--initial-advertise-peer-urls", peers),
        ("--initial-cluster", cluster),
    ] {
        command.args([flag, value]);
    }
    command
}
