//! The harness under the tests that need root, the demo and the benchmarks. This list is its map, bottom up.
//!
//! | layer | module | what it gives |
//! |---|---|---|
//! | waiting | [`wait`] | poll a condition until a deadline: nothing else in the crate sleeps |
//! | things that go away | [`scratch`], [`proc`] | directories, bpffs mounts and processes that end with their owner |
//! | namespaces | [`netns`] | a network namespace with the processes in it |
//! | network | [`topology`] | client, router, load balancer, layer 2 VLAN and web servers, addressed as in the guide; IPv6, a host on the internet and a narrow link for those who ask |
//! | programs | [`nginx`], [`dns`], [`tools`], [`peers`], [`pass`], [`daemon`], [`admin`], [`gateway`] | web servers, a name server, ping and its like, the incumbents, a foreign program, `lbha` itself with what it says, and all of it together |
//! | traffic | [`http`], [`load`], [`tcp`], [`udp`], [`flood`], [`packet`] | an HTTP client, continuous load, transfers of any size that are checked, echo servers, spoofed SYNs, and frames with an independent checksum verifier |
//! | interfaces | [`wire`], [`leak`] | frames sent and received as they are, and a guard against private addresses on the public link |
//! | measuring | [`bench`] | one module for each part of `cargo xtask bench` |
//!
//! Everything made here carries the pid of its maker in its name (`lbha-<pid>-<n>-<role>`), is removed when its
//! value is dropped, also while a panic unwinds, and is swept by the next run if the maker was killed ([`scratch::sweep`]).
//! Traffic never leaves the namespaces.
//!
//! A test panics rather than return an error, so that the message has a line number; the harness itself returns
//! [`anyhow::Result`]. A test that cannot run says so with [`skip`] or [`require_root!`].
#![deny(unsafe_code)]

pub mod admin;
pub mod bench;
pub mod daemon;
pub mod dns;
pub mod flood;
pub mod gateway;
pub mod http;
pub mod leak;
pub mod load;
pub mod netns;
pub mod nginx;
pub mod packet;
pub mod pass;
pub mod peers;
pub mod proc;
pub mod prog;
pub mod scratch;
pub mod signals;
mod sockopt;
pub mod tcp;
pub mod tools;
pub mod topology;
pub mod udp;
pub mod wait;
pub mod wire;

use std::io::Write as _;

/// Which requirements of the RFCs a test shows to be met, as its first statement.
pub use lbha_common::covers;

/// Says why a test does not run, past libtest's capture, in the form that `cargo xtask test` counts.
pub fn skip(reason: &str) {
    // Not eprintln!: libtest would show it only for tests that fail. One write, since tests run side by side.
    let _ = std::io::stderr().write_all(format!("SKIP: {reason}\n").as_bytes());
}

/// Whether the process may make namespaces and load programs.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Leaves the test, with a `SKIP:` line, unless it runs as root.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::is_root() {
            $crate::skip("needs root to make network namespaces");
            return;
        }
    };
}

/// Leaves the test, with a `SKIP:` line, unless it runs as root and `LBHA_BIN` names the daemon to test.
#[macro_export]
macro_rules! require_daemon {
    () => {
        $crate::require_root!();
        if $crate::daemon::binary().is_err() {
            $crate::skip("LBHA_BIN does not name an lbha binary");
            return;
        }
    };
}
