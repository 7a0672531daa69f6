//! `lbha run`: the daemon, in the foreground.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{
    args::{DEFAULT_BPFFS, DEFAULT_CONFIG, DEFAULT_RUNTIME_DIR},
    concat_help,
    exit::{Code, WithCode},
    output::allows_colour,
};
use crate::{
    config::{self, Attach, Loaded, Overrides, Report},
    daemon::{self, Options, StartError},
};

/// Load the datapath and forward, in the foreground.
///
/// Flags override the file and suffice without one. The datapath, its connections and its counters stay in the kernel
/// when lbha ends in an unplanned way: the next start adopts them, and forwarding never stops.
#[derive(Args, Debug)]
#[command(after_help = concat_help!(
    "Examples:
  sudo lbha run
      with /etc/lbha/lbha.toml
  sudo lbha run --iface ens14f0
      with the file, but on another interface
  sudo lbha run --iface ens14f0 --private-iface ens14f1 \\
      --vip 147.75.78.116:80 --server 192.168.1.10:80 --server 192.168.1.11:80
      without a file
  sudo lbha run --iface ens14f0 --private-iface ens14f1 --masquerade 192.168.1.0/24
      a gateway alone
  sudo lbha run --iface ens14f0 --private-iface ens14f1 \\
      --vip '[2001:db8::116]:80' --server '[fd00:1::10]:80' --masquerade fd00:1::/64
      the same over IPv6: brackets where a port follows
  sudo lbha run --runtime-dir /run/lbha-test --bpffs /sys/fs/bpf/lbha-test
      next to another daemon, in a network namespace of its own"
))]
pub struct RunArgs {
    /// Configuration file; the default one may be absent if the flags suffice [default: /etc/lbha/lbha.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Public interface: where the elastic address's packets come in
    #[arg(long, value_name = "NAME", help_heading = "Configuration")]
    pub iface: Option<String>,

    /// Private interface: where the servers are; the public one when left out
    #[arg(long, value_name = "NAME", help_heading = "Configuration")]
    pub private_iface: Option<String>,

    /// Address and port of a service, of IPv6 as [ADDRESS]:PORT; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", help_heading = "Configuration")]
    pub vip: Vec<String>,

    /// Server of the services given by --vip; may be repeated. The port defaults to the service's
    #[arg(long, value_name = "ADDRESS[:PORT]", help_heading = "Configuration")]
    pub server: Vec<String>,

    /// How a new connection's server is chosen
    #[arg(long, value_name = "NAME", value_parser = ["rr", "wrr", "lc", "maglev", "source"],
          help_heading = "Configuration")]
    pub scheduler: Option<String>,

    /// fullnat: servers see lbha's address; nat: they see the client's, and lbha is their gateway
    #[arg(long, value_parser = ["fullnat", "nat"], help_heading = "Configuration")]
    pub mode: Option<String>,

    /// Protocol of the services given by --vip
    #[arg(long, value_parser = ["tcp", "udp"], help_heading = "Configuration")]
    pub protocol: Option<String>,

    /// Network whose outbound connections leave with the public address; may be repeated. Instead of all [[masquerade]]
    /// of the file
    #[arg(long, value_name = "PREFIX", help_heading = "Configuration")]
    pub masquerade: Vec<String>,

    /// Where the admin socket lives
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUNTIME_DIR)]
    pub runtime_dir: PathBuf,

    /// Directory in a BPF file system where programs and maps are pinned
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,

    /// Leave the datapath attached on a planned stop too: forwarding goes on, `lbha detach` ends it
    #[arg(long)]
    pub keep_datapath: bool,

    /// How XDP attaches [default: what the file says, else auto]
    #[arg(long, value_enum, value_name = "MODE")]
    pub attach: Option<AttachMode>,

    /// Form of the log on stderr
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", help_heading = "Logging")]
    pub log_format: LogFormat,

    /// What is logged: a level, or a filter like `info,lbha::net=debug`
    #[arg(long, value_name = "FILTER", env = "LBHA_LOG", hide_env_values = true, default_value = DEFAULT_LOG, value_parser = log_filter,
          help_heading = "Logging")]
    pub log_level: String,

    /// What the XDP program itself logs; debug costs speed
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL", help_heading = "Logging")]
    pub bpf_log: BpfLog,
}

impl RunArgs {
    /// The configuration file, and whether it was asked for: then it has to exist.
    pub fn config_file(&self) -> (&Path, bool) {
        match &self.config {
            Some(path) => (path, true),
            None => (Path::new(DEFAULT_CONFIG), false),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AttachMode {
    /// Native where the drivers have it, generic elsewhere
    Auto,
    /// In the driver, or not at all
    Native,
    /// In the network stack: works everywhere, much slower
    Generic,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum BpfLog {
    #[default]
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

impl From<AttachMode> for Attach {
    fn from(mode: AttachMode) -> Self {
        match mode {
            AttachMode::Auto => Self::Auto,
            AttachMode::Native => Self::Native,
            AttachMode::Generic => Self::Generic,
        }
    }
}

pub fn run(args: RunArgs) -> anyhow::Result<Code> {
    let format = match args.log_format {
        LogFormat::Text => daemon::LogFormat::Text,
        LogFormat::Json => daemon::LogFormat::Json,
    };
    daemon::init_logging(format, &args.log_level)?;

    let (file, Loaded { config, report }) = load(&args);
    complain(&report);
    let Some(mut config) = config else { return Ok(Code::InvalidConfig) };
    if let Some(mode) = args.attach {
        config.datapath.attach = mode.into();
    }
    let options = Options {
        config,
        config_file: file,
        bpffs: args.bpffs,
        keep_datapath: args.keep_datapath,
        bpf_log: args.bpf_log as u8,
    };
    match daemon::run(options) {
        Ok(()) => Ok(Code::Ok),
        Err(error) if error.is::<StartError>() => Err(error).code(Code::Datapath),
        Err(error) => Err(error),
    }
}

/// The configuration from the file and the flags, and the file if there is one.
fn load(args: &RunArgs) -> (Option<PathBuf>, Loaded) {
    let overrides = Overrides {
        iface: args.iface.clone(),
        private_iface: args.private_iface.clone(),
        vip: args.vip.clone(),
        server: args.server.clone(),
        scheduler: args.scheduler.clone(),
        mode: args.mode.clone(),
        protocol: args.protocol.clone(),
        masquerade: args.masquerade.clone(),
        runtime_dir: Some(args.runtime_dir.clone()),
    };
    let (path, asked_for) = args.config_file();
    // Without the standard file the flags must say everything; the report says what is missing.
    let absent = !asked_for && path.metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    if absent
        && overrides
            != (Overrides { runtime_dir: overrides.runtime_dir.clone(), ..Overrides::default() })
    {
        return (None, config::load(None, &overrides));
    }
    (Some(path.to_path_buf()), config::load_file(path, &overrides))
}

/// Shows what is wrong with a configuration, on stderr.
pub fn complain(report: &Report) {
    if !report.is_empty() {
        let colour = io::stderr().is_terminal() && allows_colour();
        // Nobody is left to tell when stderr is closed.
        let _ = io::stderr().write_all(report.render(colour).as_bytes());
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    // A variable that is set to nothing is as good as unset.
    let text = if text.trim().is_empty() { DEFAULT_LOG } else { text };
    // A word that is no level is a target to `EnvFilter`, and silences all others: `warning`, `verbose`.
    for word in text.split(',').map(str::trim) {
        let is_target = word.contains(['=', ':', '[']) || word == "lbha";
        if !word.is_empty() && !is_target && word.parse::<LevelFilter>().is_err() {
            return Err(format!(
                "`{word}` is not a level: write off, error, warn, info, debug or trace, or TARGET=LEVEL"
            ));
        }
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

const DEFAULT_LOG: &str = "info";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn parse(line: &str) -> Result<RunArgs, String> {
        match Cli::try_parse_from(line.split_whitespace()) {
            Ok(Cli { verb: Verb::Run(args) }) => Ok(args),
            Ok(cli) => panic!("{cli:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_quick_case_needs_no_file() {
        let args = parse(
            "lbha run --iface ens14f0 --private-iface ens14f1 --vip 147.75.78.116:80 \
             --server 192.168.1.10:80 --server 192.168.1.11",
        )
        .unwrap();
        assert_eq!(args.iface.as_deref(), Some("ens14f0"));
        assert_eq!(args.private_iface.as_deref(), Some("ens14f1"));
        assert_eq!(args.vip, ["147.75.78.116:80"]);
        assert_eq!(args.server, ["192.168.1.10:80", "192.168.1.11"]);
        assert_eq!(args.config_file(), (Path::new("/etc/lbha/lbha.toml"), false));
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let args = parse("lbha run").unwrap();
        assert_eq!(args.runtime_dir, Path::new("/run/lbha"));
        assert_eq!(args.bpffs, Path::new("/sys/fs/bpf/lbha"));
        assert_eq!(args.attach, None);
        assert_eq!(args.bpf_log, BpfLog::Off);
        assert_eq!(args.log_format, LogFormat::Text);
        assert!(!args.keep_datapath);
        assert_eq!(log_filter(""), Ok("info".to_owned()));
        for filter in ["DEBUG", "2", "off", "warn,lbha::net=debug", "lbha", "lbha::daemon"] {
            assert_eq!(log_filter(filter), Ok(filter.to_owned()));
        }
        let args = parse("lbha run -c lbha.toml").unwrap();
        assert_eq!(args.config_file(), (Path::new("lbha.toml"), true));
    }

    #[test]
    fn bad_values_are_usage_errors_that_say_what_is_expected() {
        for (line, expected) in [
            ("lbha run --log-level lbha=loud", "invalid"),
            ("lbha run --log-level warning", "`warning` is not a level"),
            ("lbha run --log-level info,verbose", "`verbose` is not a level"),
            ("lbha run --scheduler fastest", "rr, wrr, lc, maglev, source"),
            ("lbha run --attach offload", "auto, native, generic"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
