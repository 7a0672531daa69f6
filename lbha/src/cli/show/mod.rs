//! `lbha show`: what the daemon answers, for people or as JSON. One file per noun; sampling is in `watch`.

mod drops;
mod flows;
mod nat;
mod rates;
mod servers;
mod services;
mod status;
mod watch;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum, builder::PossibleValuesParser};

use self::watch::Ask;
use super::{
    args::{DEFAULT_RUNTIME_DIR, address, interval, socket_in},
    concat_help,
    exit::Code,
    output,
};
use crate::api::{
    client::{flows_path, nat_path},
    router::{DEFAULT_FLOWS, FLOW_STATES, MAX_FLOWS, NAT_PROTOCOLS},
    types::{FlowQuery, NatQuery},
};

/// Show what the running daemon sees.
///
/// Options may come before or after the noun. JSON is the daemon's answer itself: fields are added, never renamed or
/// removed.
#[derive(Args, Debug)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = concat_help!(
        "Examples:
  lbha show status                            is it well?
  lbha show services --watch                  with rates, every second
  lbha show servers -o wide                   more columns
  lbha show flows --server web1 --limit 20    connections of one server
  lbha show nat --source 192.168.1.10         what one host has open to the outside
  lbha show drops --all -o wide               every counter, and what it means
  lbha show status -o json | jq .ready
  lbha show -o json --watch=5 services >> services.jsonl"
    )
)]
pub struct ShowArgs {
    #[command(subcommand)]
    pub noun: Noun,
    #[command(flatten)]
    pub options: ShowOptions,
}

#[derive(Debug, Subcommand)]
pub enum Noun {
    /// The daemon, its interfaces, its tables and what it warns of
    Status,
    /// Services, with their connections and traffic
    #[command(alias = "service")]
    Services,
    /// Servers of each service, with their state, connections and traffic
    #[command(alias = "server")]
    Servers,
    /// Connections
    #[command(alias = "flow")]
    Flows(FlowsArgs),
    #[command(alias = "masquerade")]
    Nat(NatArgs),
    /// Why packets were dropped
    #[command(alias = "drop")]
    Drops(DropsArgs),
}

#[derive(Args, Debug)]
pub struct FlowsArgs {
    /// Of this service only
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,

    /// To this server only
    #[arg(long, value_name = "NAME")]
    pub server: Option<String>,

    /// From this client only
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub client: Option<IpAddr>,

    /// In this state only
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(FLOW_STATES))]
    pub state: Option<String>,

    /// At most so many, up to 100000
    #[arg(long, value_name = "N", default_value_t = DEFAULT_FLOWS as u32,
          value_parser = clap::value_parser!(u32).range(1..=MAX_FLOWS as i64))]
    pub limit: u32,
}

/// Masquerade: ports in use of each external address, sources, bindings
///
/// What is in use of an external address is what is used up first: the ports towards the busiest remote end, or those that
/// are bound with endpoint-independent mapping. GROWTH is smoothed over the last sweeps, and EXHAUSTED IN says when no
/// port is left if it goes on like that. Sources are those with more than 1 % of their quota, and the ten with the most
/// connections.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  lbha show nat --limit 20                     usage, and the first bindings
  lbha show nat --watch                        how fast are ports used up?
  lbha show nat --source 192.168.1.10 -o wide  what one host has open, by which rule
  lbha show nat --external 147.75.78.116 --protocol udp
  lbha show nat --remote 2001:db8::53          who talks to that host?
  lbha show nat -o json | jq '.externals[] | select(.percent > 80)'")]
pub struct NatArgs {
    /// Of this private host only
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub source: Option<IpAddr>,

    /// With this external address only
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub external: Option<IpAddr>,

    /// To or from this remote host only
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub remote: Option<IpAddr>,

    /// Of this protocol only
    #[arg(long, value_name = "PROTOCOL", value_parser = PossibleValuesParser::new(NAT_PROTOCOLS))]
    pub protocol: Option<String>,

    /// At most so many bindings, up to 100000
    #[arg(long, value_name = "N", default_value_t = DEFAULT_FLOWS as u32,
          value_parser = clap::value_parser!(u32).range(1..=MAX_FLOWS as i64))]
    pub limit: u32,
}

#[derive(Args, Debug)]
pub struct DropsArgs {
    /// Every counter: also those at zero, and what was forwarded or left to the kernel
    #[arg(long)]
    pub all: bool,
}

#[derive(Args, Debug)]
pub struct ShowOptions {
    /// Form of the result
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,

    /// Again every second, or every SECONDS, until Ctrl-C; counters come with rates
    #[arg(short, long, global = true, value_name = "SECONDS", value_parser = interval,
          num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub watch: Option<Duration>,

    /// Admin socket of the daemon [default: admin.sock in the runtime directory]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Runtime directory of the daemon [default: /run/lbha]
    #[arg(long, global = true, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For reading
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// The daemon's answer, on one line when watching
    Json,
}

/// How a noun is printed as a table.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    wide: bool,
    colour: bool,
    /// Columns for what changed since the previous sample.
    rates: bool,
}

pub fn show(args: ShowArgs) -> anyhow::Result<Code> {
    let ShowArgs { noun, options } = args;
    let ShowOptions { output: format, watch, socket, runtime_dir } = options;
    let socket = match (socket, runtime_dir) {
        (Some(socket), None) => socket,
        (None, Some(dir)) => socket_in(&dir),
        (None, None) => socket_in(DEFAULT_RUNTIME_DIR.as_ref()),
        // clap sees conflicts only between options on the same side of the noun.
        (Some(_), Some(_)) => bail!("--socket and --runtime-dir exclude each other"),
    };
    let look = Look {
        wide: format == Format::Wide,
        colour: output::wants_colour(),
        rates: watch.is_some(),
    };
    let ask = Ask { socket, json: format == Format::Json, watch, look };

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        match noun {
            Noun::Status => ask.show("status", "/v1/status", status::render).await,
            Noun::Services => ask.show("services", "/v1/services", services::render).await,
            Noun::Servers => ask.show("servers", "/v1/servers", servers::render).await,
            Noun::Flows(args) => {
                let path = flows_path(&args.query());
                ask.show("flows", &path, |now, _, look| flows::render(now, look)).await
            }
            Noun::Nat(args) => {
                let path = nat_path(&args.query());
                ask.show("nat", &path, |now, _, look| nat::render(now, look)).await
            }
            Noun::Drops(DropsArgs { all }) => {
                ask.show("drops", "/v1/drops", |now, before, look| {
                    drops::render(now, before, look, all)
                })
                .await
            }
        }
    })
}

impl FlowsArgs {
    fn query(self) -> FlowQuery {
        let Self { service, server, client, state, limit } = self;
        FlowQuery { limit: Some(limit as usize), service, server, client, state }
    }
}

impl NatArgs {
    fn query(self) -> NatQuery {
        let Self { source, external, remote, protocol, limit } = self;
        NatQuery { limit: Some(limit as usize), source, external, remote, protocol }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn parse(line: &str) -> Result<ShowArgs, String> {
        match Cli::try_parse_from(line.split_whitespace()) {
            Ok(Cli { verb: Verb::Show(args) }) => Ok(args),
            Ok(cli) => panic!("{cli:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn options_may_come_before_or_after_the_noun() {
        for line in [
            "lbha show -o wide --watch=2 --socket /s services",
            "lbha show services -o wide --watch=2 --socket /s",
            "lbha show --socket /s services --watch=2 -o wide",
            "lbha show -w=2s --output=wide services --socket=/s",
        ] {
            let ShowArgs { noun, options } = parse(line).unwrap();
            assert!(matches!(noun, Noun::Services), "{line}");
            assert_eq!(options.output, Format::Wide, "{line}");
            assert_eq!(options.watch, Some(Duration::from_secs(2)), "{line}");
            assert_eq!(options.socket, Some("/s".into()), "{line}");
        }
    }

    #[test]
    fn watch_is_every_second_and_takes_no_noun_for_its_value() {
        let args = parse("lbha show --watch services").unwrap();
        assert!(matches!(args.noun, Noun::Services));
        assert_eq!(args.options.watch, Some(Duration::from_secs(1)));
        assert_eq!(parse("lbha show services").unwrap().options.watch, None);
        assert!(parse("lbha show services --watch=0").unwrap_err().contains("expected seconds"));
    }

    #[test]
    fn flows_take_filters() {
        let line = "lbha show flows --service www --server web1 --client 203.0.113.7 --state syn --limit 5";
        let Noun::Flows(args) = parse(line).unwrap().noun else { panic!() };
        assert_eq!(
            flows_path(&args.query()),
            "/v1/flows?limit=5&service=www&server=web1&client=203.0.113.7&state=syn"
        );
        let Noun::Flows(args) = parse("lbha show flows --client 2001:db8::7").unwrap().noun else {
            panic!()
        };
        let path = flows_path(&args.query());
        assert!(path.ends_with("client=2001%3Adb8%3A%3A7"), "{path}");
        assert!(parse("lbha show flows --state open").unwrap_err().contains("established"));
        assert!(parse("lbha show flows --limit 100001").unwrap_err().contains("100001"));
        assert!(parse("lbha show flows --limit 0").unwrap_err().contains("1..=100000"));
    }
    #[test]
    fn nat_takes_filters() {
        let line = "lbha show nat --source fd00:1::10 --external 2001:db8::116 --remote 2001:db8::53 \
                    --protocol udp --limit 5";
        let Noun::Nat(args) = parse(line).unwrap().noun else { panic!() };
        assert_eq!(
            nat_path(&args.query()),
            "/v1/nat?limit=5&source=fd00%3A1%3A%3A10&external=2001%3Adb8%3A%3A116\
             &remote=2001%3Adb8%3A%3A53&protocol=udp"
        );
        for (line, message) in [
            ("--source web1", "`web1` is not an IP address"),
            ("--external 192.0.2.1:80", "`192.0.2.1` and a port: an address alone is expected"),
            ("--remote [2001:db8::1]:53", "`2001:db8::1` and a port: an address alone is expected"),
            ("--remote 192.168.1.0/24", "a network: an address alone is expected"),
            ("--protocol sctp", "[possible values: tcp, udp, icmp]"),
            ("--limit 0", "1..=100000"),
        ] {
            let error = parse(&format!("lbha show nat {line}")).unwrap_err();
            assert!(error.contains(message), "{line}: {error}");
        }
        let line = "lbha show flows --client localhost";
        assert!(parse(line).unwrap_err().contains("is not an IP address"));
    }
}
