//! Decides how to get what is missing, over a description of the machine; does nothing itself.

use std::fmt;

use super::needs::{Need, Sign};
use crate::ebpf::{LINKER_VERSION, PINNED_NIGHTLY};

/// What there is to get things with.
#[derive(Debug, Default, Clone)]
pub struct Machine {
    /// Debian, Ubuntu and what is made of them.
    pub has_apt: bool,
    pub has_rustup: bool,
    /// The packages of a rustc new enough to build for BPF, if the distribution has one.
    pub rust_packages: Option<&'static [&'static str]>,
    /// Whether the distribution has the LLVM that bpf-linker needs.
    pub has_llvm: bool,
    /// The rustup toolchain that builds for BPF, if that is where it is from.
    pub rustup_toolchain: Option<String>,
}

/// Names under which Debian packages rustc, cargo and the library sources, newest first.
pub const RUST_PACKAGES: [&[&str]; 2] =
    [&["rustc-web", "cargo-web", "rust-web-src"], &["rustc", "cargo", "rust-src"]];
pub const LLVM_PACKAGES: [&str; 5] =
    ["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev", "libxml2-dev"];

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// With apt, all at once.
    Packages(Vec<&'static str>),
    Rustup(Vec<String>),
    /// `cargo install`, against the system's LLVM or that of a rustup toolchain.
    Linker {
        system_llvm: bool,
    },
    MountBpffs,
}

/// The steps in their order, and what they do not reach.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub out_of_reach: Vec<&'static Need>,
}

pub fn plan(missing: &[&'static Need], machine: &Machine) -> Plan {
    let mut plan = Plan::default();
    let mut packages = Vec::new();
    let mut rustup = Vec::new();
    let mut last = Vec::new();
    let lacks_rust = missing.iter().any(|need| need.sign == Sign::Rust);
    // The toolchain that will build for BPF when all is done: rustup's, or the distribution's?
    let from_rustup = if lacks_rust {
        machine.rust_packages.is_none() && machine.has_rustup
    } else {
        machine.rustup_toolchain.is_some()
    };
    for &need in missing {
        match need.sign {
            Sign::Rust => match machine.rust_packages {
                Some(names) => packages.extend(names),
                None if machine.has_rustup => rustup.push(words(&format!(
                    "toolchain install {PINNED_NIGHTLY} --component rust-src --profile minimal"
                ))),
                None => plan.out_of_reach.push(need),
            },
            // Preferred where packages have it: it links against an LLVM that stays.
            Sign::Linker if machine.has_llvm && !from_rustup => {
                packages.extend(LLVM_PACKAGES);
                last.push(Step::Linker { system_llvm: true });
            }
            Sign::Linker if from_rustup && machine.has_rustup => {
                last.push(Step::Linker { system_llvm: false });
            }
            Sign::Linker => plan.out_of_reach.push(need),
            Sign::Bpffs => last.push(Step::MountBpffs),
            Sign::CargoVerb("fmt") if machine.has_rustup => {
                rustup.push(words("component add rustfmt"));
            }
            Sign::CargoVerb(_) if machine.has_rustup => {
                rustup.push(words("component add clippy"));
            }
            Sign::Clippy if from_rustup => {
                let toolchain = machine.rustup_toolchain.as_deref().unwrap_or(PINNED_NIGHTLY);
                rustup.push(words(&format!("component add clippy --toolchain {toolchain}")));
            }
            Sign::Clippy | Sign::CargoVerb(_) | Sign::Program(_) if machine.has_apt => {
                packages.extend(need.debian.split(' '));
            }
            Sign::Clippy | Sign::CargoVerb(_) | Sign::Program(_) => plan.out_of_reach.push(need),
        }
    }
    if !packages.is_empty() {
        packages.sort_unstable();
        packages.dedup();
        plan.steps.push(Step::Packages(packages));
    }
    plan.steps.extend(rustup.into_iter().map(Step::Rustup));
    plan.steps.extend(last);
    plan
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(ToOwned::to_owned).collect()
}

impl Step {
    pub fn linker_arguments(system_llvm: bool) -> Vec<String> {
        let features = "--no-default-features --features llvm-22";
        let tail = if system_llvm { format!(" {features}") } else { String::new() };
        words(&format!("install bpf-linker --version {LINKER_VERSION} --locked{tail}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages(names) => write!(f, "apt-get install {}", names.join(" ")),
            Self::Rustup(arguments) => write!(f, "rustup {}", arguments.join(" ")),
            Self::Linker { system_llvm } => {
                write!(f, "cargo {}", Self::linker_arguments(*system_llvm).join(" "))
            }
            Self::MountBpffs => write!(f, "mount -t bpf bpf /sys/fs/bpf"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::needs::NEEDS;
    use super::*;

    fn debian() -> Machine {
        Machine {
            has_apt: true,
            rust_packages: Some(RUST_PACKAGES[0]),
            has_llvm: true,
            ..Machine::default()
        }
    }

    fn all() -> Vec<&'static Need> {
        NEEDS.iter().collect()
    }

    fn only(sign: Sign) -> Vec<&'static Need> {
        NEEDS.iter().filter(|need| need.sign == sign).collect()
    }

    fn steps(plan: &Plan) -> Vec<String> {
        plan.steps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn debian_gets_everything_from_its_packages() {
        let plan = plan(&all(), &debian());
        assert_eq!(plan.out_of_reach, [] as [&Need; 0]);
        assert_eq!(
            steps(&plan),
            [
                "apt-get install bind9-dnsutils cargo-web curl dnsmasq-base ethtool gcc haproxy \
                 iproute2 iptables iputils-ping libc6-dev libpolly-22-dev libxml2-dev libzstd-dev \
                 llvm-22-dev nftables nginx-light rust-web-clippy rust-web-src rustc-web \
                 rustfmt-web traceroute wrk zlib1g-dev",
                "cargo install bpf-linker --version 0.10.3 --locked --no-default-features \
                 --features llvm-22",
                "mount -t bpf bpf /sys/fs/bpf",
            ]
        );
    }

    #[test]
    fn packages_are_preferred_to_a_download_of_a_toolchain() {
        let machine = Machine { has_rustup: true, ..debian() };
        let plan = plan(&only(Sign::Rust), &machine);
        assert_eq!(steps(&plan), ["apt-get install cargo-web rust-web-src rustc-web"]);
    }

    #[test]
    fn rustup_serves_where_the_packages_are_too_old() {
        let machine = Machine { has_rustup: true, has_apt: true, ..Machine::default() };
        let missing: Vec<_> = NEEDS
            .iter()
            .filter(|need| matches!(need.sign, Sign::Rust | Sign::Linker | Sign::Clippy))
            .collect();
        let plan = plan(&missing, &machine);
        assert_eq!(
            steps(&plan),
            [
                "rustup toolchain install nightly-2026-05-19 --component rust-src --profile minimal",
                "rustup component add clippy --toolchain nightly-2026-05-19",
                "cargo install bpf-linker --version 0.10.3 --locked",
            ]
        );
    }

    #[test]
    fn the_linker_fits_the_toolchain_that_is_there() {
        let rustup = Machine {
            has_rustup: true,
            rustup_toolchain: Some("nightly-x86_64-unknown-linux-gnu".into()),
            ..debian()
        };
        let steps_there = steps(&plan(&only(Sign::Linker), &rustup));
        assert_eq!(steps_there, ["cargo install bpf-linker --version 0.10.3 --locked"]);
        let steps_debian = steps(&plan(&only(Sign::Linker), &debian()));
        assert!(steps_debian[1].ends_with("--features llvm-22"), "{steps_debian:?}");
    }

    #[test]
    fn what_nothing_here_can_get_is_said() {
        let plan = plan(&all(), &Machine::default());
        assert_eq!(steps(&plan), ["mount -t bpf bpf /sys/fs/bpf"]);
        assert_eq!(plan.out_of_reach.len(), NEEDS.len() - 1);
    }
}
