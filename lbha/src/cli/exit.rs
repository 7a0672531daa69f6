//! The exit codes, and how an error gets one. Scripts rely on them: they are only added to.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use nix::unistd::geteuid;

use crate::api::client::ClientError;

#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    /// A usage error, or an operation that failed for none of the reasons below.
    Failed = 1,
    InvalidConfig = 2,
    /// Nothing answers on the admin socket, or nothing that this user may ask.
    Unreachable = 3,
    /// The kernel refused the program, its maps or its attachment.
    Datapath = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// The end of every `--help`.
pub const HELP: &str = "\
Exit codes:
  0  ok
  1  usage error, or the operation failed
  2  the configuration is invalid
  3  the daemon cannot be reached
  4  the kernel refused the datapath";

/// Gives the error of a `Result` an exit code other than 1.
pub trait WithCode<T> {
    fn code(self, code: Code) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> WithCode<T> for Result<T, E> {
    fn code(self, code: Code) -> anyhow::Result<T> {
        self.map_err(|error| Coded { code, error: error.into() }.into())
    }
}

/// An error with its code; it reads as the error alone.
#[derive(Debug)]
struct Coded {
    code: Code,
    error: anyhow::Error,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Coded {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// Reports the error of a verb, if it ended with one, and says how to exit.
pub fn conclude(result: anyhow::Result<Code>) -> Code {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    // `lbha show flows | head`: the reader has what it wanted.
    if is_broken_pipe(&error) {
        return Code::Ok;
    }
    // Nobody is left to tell when stderr is closed too.
    let _ = writeln!(io::stderr(), "lbha: {error:#}{}", hint(&error, geteuid().is_root()));
    code_of(&error)
}

/// What helps where the kernel only says that it does not permit something.
fn hint(error: &anyhow::Error, root: bool) -> &'static str {
    let denied = error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    });
    match (denied, root) {
        (true, false) if error.chain().any(|cause| cause.is::<ClientError>()) => "",
        (true, false) => "; run it as root",
        (true, true) if code_of(error) == Code::Datapath => {
            "; it takes CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON"
        }
        _ => "",
    }
}

fn code_of(error: &anyhow::Error) -> Code {
    for cause in error.chain() {
        if let Some(coded) = cause.downcast_ref::<Coded>() {
            return coded.code;
        }
        if cause.downcast_ref::<ClientError>().is_some_and(ClientError::is_unreachable) {
            return Code::Unreachable;
        }
    }
    Code::Failed
}

/// Only of our own output, whose errors are marked: an `EPIPE` from elsewhere is
/// still an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<super::output::Closed>())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::{Context, anyhow};

    use super::*;
    use crate::cli::output::Closed;

    #[test]
    fn codes_survive_context() {
        let error = Err::<(), _>(anyhow!("line 3").context("bad file"))
            .code(Code::InvalidConfig)
            .context("cannot start")
            .unwrap_err();
        assert_eq!(code_of(&error), Code::InvalidConfig);
        assert_eq!(format!("{error:#}"), "cannot start: bad file: line 3");
    }

    #[test]
    fn an_unreachable_daemon_is_3_and_a_refusal_is_1() {
        let unreachable = ClientError::NoDaemon(PathBuf::from("/run/lbha/admin.sock"));
        assert_eq!(code_of(&anyhow::Error::from(unreachable).context("show")), Code::Unreachable);
        let refused =
            ClientError::Status { status: hyper::StatusCode::BAD_REQUEST, message: "no".into() };
        assert_eq!(code_of(&refused.into()), Code::Failed);
        assert_eq!(code_of(&anyhow!("anything")), Code::Failed);
    }

    #[test]
    fn a_denied_operation_says_who_may() {
        let denied = || anyhow::Error::from(io::Error::from_raw_os_error(libc::EPERM));
        let datapath = Err::<(), _>(denied().context("map")).code(Code::Datapath).unwrap_err();
        assert_eq!(hint(&datapath, false), "; run it as root");
        assert!(hint(&datapath, true).contains("CAP_BPF"));
        assert_eq!(hint(&denied(), true), "");
        assert_eq!(hint(&anyhow!("anything"), false), "");
    }

    #[test]
    fn a_closed_output_is_a_success() {
        assert_eq!(conclude(Err(anyhow::Error::from(Closed).context("cannot print"))), Code::Ok);
        assert_eq!(conclude(Ok(Code::InvalidConfig)), Code::InvalidConfig);
    }

    #[test]
    fn the_help_lists_every_code() {
        for code in [Code::Ok, Code::Failed, Code::InvalidConfig, Code::Unreachable, Code::Datapath]
        {
            assert!(HELP.contains(&format!("\n  {}  ", code as u8)), "{code:?}");
        }
    }
}
