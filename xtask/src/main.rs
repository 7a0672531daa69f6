//! The project's own commands; `cargo xtask --help` is the list.

mod ebpf;

use std::path::Path;

use clap::Parser;

/// Sets up, builds, tests, shows and measures lbha.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    /// Build the XDP object alone.
    BuildEbpf {
        /// Features of lbha-ebpf.
        #[arg(long, value_delimiter = ',')]
        features: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("invariant: a member's directory");
    let Command::BuildEbpf { features } = Command::parse();
    let features: Vec<&str> = features.iter().map(String::as_str).collect();
    let object = ebpf::build_object(root, &features, &mut ebpf::Output::Inherit)?;
    println!("{}", object.display());
    Ok(())
}
