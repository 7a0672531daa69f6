//! The configuration: from the file and the flags to a [`Config`], or to a [`Report`] of every
//! error at once with its place.
//!
//! The steps, each in a file of its own: `syntax` parses the TOML; `read` goes through its tables
//! with `walk` and `schema` and parses single values with `values` and `addresses` into a `draft`; `overrides`
//! puts the flags on top; `validate` checks what needs more than one value. Nothing here knows the
//! clock or the network.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

mod addresses;
mod diagnostics;
mod draft;
mod model;
mod overrides;
mod read;
mod schema;
mod suggest;
mod syntax;
mod validate;
mod values;
mod walk;

#[cfg(test)]
mod tests;

pub use diagnostics::{Diagnostic, Report, Severity};
pub use model::{
    ADMIN_SOCKET, Admin, Attach, Config, DEFAULT_RUNTIME_DIR, Datapath, Forward, Interfaces,
    LAST_FREE_PORT, MAX_MASQUERADE_ADDRESSES, MAX_MASQUERADE_SOURCES, MAX_MASQUERADES, MAX_MSS,
    MAX_SERVERS, MAX_SERVICES, MAX_WEIGHT, MIN_MSS, Mapping, Masquerade, MasqueradeTo, Mode,
    MssClamp, Pool, PortRange, Protocol, Scheduler, Server, Service, Timeouts, duration_text,
};
pub use overrides::Overrides;

use diagnostics::{Origin, Problem};
use draft::Draft;

/// What came of loading: there is a configuration exactly when the report has no errors. Warnings
/// may be there either way.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Option<Config>,
    pub report: Report,
}

/// Checks a file's text together with the flags; the path is only what messages call the file.
/// Without a file the flags must say everything.
pub fn load(source: Option<(&Path, &str)>, overrides: &Overrides) -> Loaded {
    let Some((path, text)) = source else {
        return checked(Some(Draft::default()), false, overrides, Report::new(None));
    };
    let mut report = Report::new(Some((&path.display().to_string(), text)));
    if text.len() > MAX_FILE {
        return refused(report, too_large());
    }
    let draft = read::file(text, &mut report);
    checked(draft, true, overrides, report)
}

/// [`load`] with the text from a file. That it cannot be read is an error in the report.
pub fn load_file(path: &Path, overrides: &Overrides) -> Loaded {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large without reading all of it.
    let read =
        File::open(path).and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return refused(Report::new(Some((&name, ""))), unreadable(&error));
    }
    if bytes.len() > MAX_FILE {
        return refused(Report::new(Some((&name, ""))), too_large());
    }
    match str::from_utf8(&bytes) {
        Ok(text) => load(Some((path, text)), overrides),
        Err(error) => {
            // Up to the first bad byte the replacement changes nothing, so the place is right.
            let text = String::from_utf8_lossy(&bytes);
            let at = error.valid_up_to();
            let span = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
            let message = format!("the file is not UTF-8: found the byte {:#04x}", bytes[at]);
            refused(
                Report::new(Some((&name, &text))),
                Problem::error(Origin::File(span), message).help("save the file as UTF-8"),
            )
        }
    }
}

/// The rest of loading, the same with and without a file. No draft: the text was not TOML, and
/// only the flags are left to check.
fn checked(
    draft: Option<Draft>,
    has_file: bool,
    overrides: &Overrides,
    mut report: Report,
) -> Loaded {
    let complete = draft.is_some();
    let mut draft = draft.unwrap_or_default();
    if !has_file {
        draft.datapath = Some(Datapath::default());
        draft.timeouts = Some(Timeouts::default());
    }
    overrides.apply(&mut draft, has_file, &mut report);
    if complete {
        validate::check(&draft, has_file, &mut report);
    }
    report.sort();
    if report.has_errors() {
        return Loaded { config: None, report };
    }
    let runtime_dir =
        overrides.runtime_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_RUNTIME_DIR));
    let config = draft.finish(runtime_dir.join(ADMIN_SOCKET));
    Loaded { config: Some(config.expect("invariant: what is missing was reported")), report }
}

fn refused(mut report: Report, problem: Problem) -> Loaded {
    report.push(problem);
    Loaded { config: None, report }
}

fn unreadable(error: &io::Error) -> Problem {
    let problem = Problem::error(Origin::WholeFile, format!("cannot read the file: {error}"));
    match error.kind() {
        io::ErrorKind::NotFound => {
            problem.help("write it, name another with --config, or use flags alone")
        }
        io::ErrorKind::PermissionDenied => problem.help("run as root, or change its mode"),
        _ => problem,
    }
}

fn too_large() -> Problem {
    Problem::error(Origin::WholeFile, "the file is too large: it may have at most 1 MiB")
}

/// Far more than any configuration needs, and little enough to read a wrong file by mistake.
const MAX_FILE: usize = 1024 * 1024;
