//! What the commands need from the machine: why, how to see that it is there, and who packages it.

use std::fs;
use std::process::{Command, Stdio};

use super::Purpose::{self, Building, Linting, Running};
use crate::{ebpf, root};

#[derive(Debug, PartialEq, Eq)]
pub struct Need {
    pub name: &'static str,
    pub why: &'static str,
    pub purpose: Purpose,
    pub sign: Sign,
    /// Separated by blanks; empty where it takes more than a package. See the plan for those.
    pub debian: &'static str,
    pub fedora: &'static str,
    pub arch: &'static str,
}

/// How to see that it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sign {
    /// This program is there.
    Program(&'static str),
    /// Cargo has this subcommand. Looking for a program is not enough: rustup leaves stand-ins for
    /// what is not installed.
    CargoVerb(&'static str),
    /// A rustc that builds for BPF.
    Rust,
    Linker,
    /// The clippy that belongs to that rustc.
    Clippy,
    /// The BPF file system is mounted.
    Bpffs,
}

pub const NEEDS: &[Need] = &[
    Need {
        name: "C compiler",
        why: "cargo links with it",
        purpose: Building,
        sign: Sign::Program("cc"),
        debian: "gcc libc6-dev",
        fedora: "gcc",
        arch: "gcc",
    },
    Need {
        name: "Rust for BPF",
        why: "builds the XDP program: a rustc of LLVM 22 with its library sources",
        purpose: Building,
        sign: Sign::Rust,
        debian: "",
        fedora: "rust cargo rust-src",
        arch: "rust rust-src",
    },
    Need {
        name: "bpf-linker",
        why: "links the XDP program",
        purpose: Building,
        sign: Sign::Linker,
        debian: "",
        fedora: "llvm-devel",
        arch: "bpf-linker",
    },
    Need {
        name: "rustfmt",
        why: "checks the format",
        purpose: Linting,
        sign: Sign::CargoVerb("fmt"),
        debian: "rustfmt-web",
        fedora: "rustfmt",
        arch: "rust",
    },
    Need {
        name: "clippy",
        why: "lints",
        purpose: Linting,
        sign: Sign::CargoVerb("clippy"),
        debian: "rust-web-clippy",
        fedora: "clippy",
        arch: "rust",
    },
    Need {
        name: "clippy for BPF",
        why: "lints the XDP program: the clippy of the rustc that builds it",
        purpose: Linting,
        sign: Sign::Clippy,
        debian: "rust-web-clippy",
        fedora: "clippy",
        arch: "rust",
    },
    tool("ip", "makes network namespaces and links", "iproute2", "iproute", "iproute2"),
    tool("ethtool", "switches offloads of test links", "ethtool", "ethtool", "ethtool"),
    tool("nft", "firewall rules, and a balancer to measure", "nftables", "nftables", "nftables"),
    tool("iptables", "what lbha replaces", "iptables", "iptables-nft", "iptables"),
    tool("nginx", "the servers behind lbha", "nginx-light", "nginx-core", "nginx"),
    tool("haproxy", "what lbha replaces", "haproxy", "haproxy", "haproxy"),
    tool("wrk", "makes HTTP load", "wrk", "wrk", "wrk"),
    tool("curl", "makes HTTP requests", "curl", "curl", "curl"),
    tool("ping", "asks for echoes through the gateway", "iputils-ping", "iputils", "iputils"),
    tool("traceroute", "shows routers' errors", "traceroute", "traceroute", "traceroute"),
    tool("dnsmasq", "a name server to ask", "dnsmasq-base", "dnsmasq", "dnsmasq"),
    tool("dig", "asks name servers", "bind9-dnsutils", "bind-utils", "bind"),
    Need {
        name: "/sys/fs/bpf",
        why: "the BPF file system, where maps and links are pinned",
        purpose: Running,
        sign: Sign::Bpffs,
        debian: "",
        fedora: "",
        arch: "",
    },
];

/// A program that tests, demo and benchmark run.
const fn tool(
    name: &'static str,
    why: &'static str,
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
) -> Need {
    Need { name, why, purpose: Running, sign: Sign::Program(name), debian, fedora, arch }
}

/// What of it is not there.
pub fn missing(purposes: &[Purpose]) -> Vec<&'static Need> {
    let toolchain = ebpf::find();
    NEEDS
        .iter()
        .filter(|need| purposes.contains(&need.purpose) && !is_there(need.sign, &toolchain))
        .collect()
}

fn is_there(sign: Sign, toolchain: &Result<ebpf::Toolchain, ebpf::Missing>) -> bool {
    match (sign, toolchain) {
        (Sign::Program(name), _) => root::program(name).is_some(),
        (Sign::CargoVerb(verb), _) => has_verb(verb),
        (Sign::Rust, Err(missing)) => !missing.lacks_rust(),
        (Sign::Linker, Err(missing)) => !missing.lacks_linker(),
        (Sign::Rust | Sign::Linker, Ok(_)) => true,
        (Sign::Clippy, Ok(toolchain)) => toolchain.rust.cargo_clippy().is_file(),
        (Sign::Clippy, Err(_)) => false,
        (Sign::Bpffs, _) => is_bpffs(&fs::read_to_string("/proc/self/mounts").unwrap_or_default()),
    }
}

fn has_verb(verb: &str) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([verb, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_bpffs(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some("/sys/fs/bpf") && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_bpf_file_system_is_recognised() {
        let sysfs = "sysfs /sys sysfs rw,nosuid 0 0\n";
        assert!(!is_bpffs(sysfs));
        assert!(is_bpffs(&format!("{sysfs}bpf /sys/fs/bpf bpf rw,relatime 0 0\n")));
        assert!(!is_bpffs("tmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }

    #[test]
    fn every_need_says_why() {
        assert!(NEEDS.iter().all(|need| !need.why.is_empty() && !need.name.is_empty()));
    }
}
