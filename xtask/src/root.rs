//! Root for the few programs that need it; cargo is never among them.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::bail;

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether there is a way to become root.
pub fn is_reachable() -> bool {
    is_root() || program("sudo").is_some()
}

/// The same command as root: as it is for root, through sudo for everybody else.
pub fn command(command: Command, why: &str) -> anyhow::Result<Command> {
    if is_root() {
        return Ok(command);
    }
    if program("sudo").is_none() {
        bail!("root is needed {why}, and there is no sudo here: run this as root");
    }
    eprintln!("root is needed {why}: through sudo");
    Ok(through_sudo(&command))
}

/// `env` carries what the command's environment adds, also where sudo's policy forbids `-E`'s
/// whole effect.
fn through_sudo(command: &Command) -> Command {
    let mut sudo = Command::new("sudo");
    sudo.args(["-E", "--", "env"]);
    for (name, value) in command.get_envs() {
        let mut pair = OsString::from(name);
        pair.push("=");
        pair.push(value.unwrap_or(OsStr::new("")));
        sudo.arg(pair);
    }
    sudo.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        sudo.current_dir(directory);
    }
    sudo
}

/// Finds a program, also where a user's PATH on Debian does not look: in the administrator's
/// directories.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(administrators)
        .map(|directory| directory.join(name))
        .find(|path| fs::metadata(path).is_ok_and(|data| data.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_is_given_the_variables_and_the_arguments() {
        let mut command = Command::new("/t/prog_lb");
        command.arg("--nocapture").env("LBHA_BIN", "/t/lbha").current_dir("/w/tests");
        let sudo = through_sudo(&command);
        let arguments: Vec<_> = sudo.get_args().collect();
        assert_eq!(sudo.get_program(), "sudo");
        assert_eq!(arguments, ["-E", "--", "env", "LBHA_BIN=/t/lbha", "/t/prog_lb", "--nocapture"]);
        assert_eq!(sudo.get_current_dir(), Some("/w/tests".as_ref()));
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(program("sh").is_some());
        assert!(program("no-such-program-anywhere").is_none());
    }
}
