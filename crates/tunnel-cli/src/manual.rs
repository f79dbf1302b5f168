//! `tunnel completions` and `tunnel man`: what shells and readers are told about the commands.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap_complete::Shell;

/// Print the completions for a shell.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Print the man page of the program, or write those of all commands.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Man {
    /// The directory to write the pages to: tunnel.1, tunnel-gateway.1 and so on.
    directory: Option<PathBuf>,
}

pub(crate) fn completions(mut program: clap::Command, args: &Completions) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut program, "tunnel", &mut text);
    print(&text)
}

pub(crate) fn man(program: clap::Command, args: &Man) -> Result<ExitCode> {
    let Some(directory) = &args.directory else {
        let mut text = Vec::new();
        clap_mangen::Man::new(program).render(&mut text)?;
        return print(&text);
    };
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(program, directory))
        .with_context(|| format!("cannot write to {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &[u8]) -> Result<ExitCode> {
    std::io::stdout().write_all(text)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn pages(program: &clap::Command, name: &str, pages: &mut Vec<String>) {
        pages.push(format!("{name}.1"));
        for command in program.get_subcommands().filter(|c| !c.is_hide_set()) {
            self::pages(command, &format!("{name}-{}", command.get_name()), pages);
        }
    }

    #[test]
    fn every_command_has_a_man_page() {
        let directory = tempfile::tempdir().expect("a directory");
        let args = Man {
            directory: Some(directory.path().to_owned()),
        };
        man(crate::Cli::command(), &args).expect("written");
        let mut expected = Vec::new();
        pages(&crate::Cli::command(), "tunnel", &mut expected);
        assert!(expected.contains(&"tunnel-certs-init.1".to_owned()));
        for page in &expected {
            let text = std::fs::read_to_string(directory.path().join(page));
            let text = text.unwrap_or_else(|error| panic!("{page}: {error}"));
            assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
        }
    }
}
