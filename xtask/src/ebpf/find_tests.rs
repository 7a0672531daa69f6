//! Tests of the choice of an eBPF toolchain, over described machines.

use super::*;

const DEBIAN: &str = "\
rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)
binary: rustc
commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96
commit-date: 2026-05-25
host: x86_64-unknown-linux-gnu
release: 1.96.0
LLVM version: 22.1.8
";

#[test]
fn the_version_is_read_from_what_rustc_prints() {
    let version = Version::parse(DEBIAN).unwrap();
    assert_eq!(version, Version { release: "1.96.0".into(), llvm: "22.1.8".into() });
    assert_eq!(version.release_number(), (1, 96));
    assert_eq!(version.llvm_major(), Some(22));
    assert_eq!(Version::parse("error: no such command"), None);
    assert_eq!(rustc("1.97.0-nightly", "22.1.4").unwrap().release_number(), (1, 97));
}

#[test]
fn the_first_usable_installation_is_chosen() {
    let facts = Facts {
        asked: None,
        rusts: vec![
            rustup("stable", false, None),
            rustup("1.90.0", true, rustc("1.90.0", "20.1.8")),
            rustup("1.96.0", true, rustc("1.96.0", "21.1.0")),
            packages(rustc("1.96.0", "22.1.8")),
            rustup("nightly", true, rustc("1.97.0-nightly", "22.1.4")),
        ],
        linkers: vec![linker("/opt/bin", "0.9.15"), linker("/c/bin", "0.10.3")],
    };
    let toolchain = choose(facts).unwrap();
    assert_eq!(toolchain.rust.origin, Origin::Packages);
    assert_eq!(toolchain.linker.path, Path::new("/c/bin/bpf-linker"));
    assert!(toolchain.needs_bootstrap());
    assert_eq!(
        toolchain.to_string(),
        "the distribution's rustc 1.96.0 (LLVM 22.1.8) at /usr; bpf-linker 0.10.3 at /c/bin/bpf-linker"
    );
}

#[test]
fn a_nightly_needs_no_bootstrap() {
    let facts = Facts {
        asked: None,
        rusts: vec![rustup(PINNED_NIGHTLY, true, rustc("1.97.0-nightly", "22.1.4"))],
        linkers: vec![linker("/c/bin", "0.10.0")],
    };
    let toolchain = choose(facts).unwrap();
    assert!(!toolchain.needs_bootstrap());
}

#[test]
fn a_machine_with_nothing_is_told_what_was_looked_at_and_how_to_fix_it() {
    let facts = Facts {
        asked: None,
        rusts: vec![
            rustup("stable", false, None),
            rustup("1.90.0", true, rustc("1.90.0", "20.1.8")),
            packages(rustc("1.96.0", "21.1.2")),
        ],
        linkers: vec![linker("/opt/bin", "0.9.15")],
    };
    let missing = choose(facts).unwrap_err();
    assert!(missing.lacks_rust() && missing.lacks_linker());
    let text = missing.to_string();
    for part in [
        "/toolchains/stable: has no rust-src",
        "/toolchains/1.90.0: rustc 1.90.0 is older than 1.95",
        "/usr: has LLVM 21.1.2, not 22",
        "/opt/bin/bpf-linker: is 0.9.15",
        "cargo xtask setup",
        PINNED_NIGHTLY,
        &format!("cargo install bpf-linker --version {LINKER_VERSION}"),
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn only_what_is_missing_is_called_missing() {
    let good = || packages(rustc("1.96.0", "22.1.8"));
    let missing = choose(Facts { rusts: vec![good()], ..Facts::default() }).unwrap_err();
    assert!(!missing.lacks_rust() && missing.lacks_linker());
    assert!(missing.to_string().contains("rust-src: found"));

    let linkers = vec![linker("/c/bin", "0.10.3")];
    let missing = choose(Facts { linkers, ..Facts::default() }).unwrap_err();
    assert!(missing.lacks_rust() && !missing.lacks_linker());
    assert!(missing.to_string().contains("rustup has no toolchain"));
}

#[test]
fn a_toolchain_that_was_asked_for_is_the_only_one_looked_at() {
    let facts = Facts {
        asked: Some("stable".into()),
        rusts: vec![rustup("stable", false, None)],
        linkers: vec![linker("/c/bin", "0.10.3")],
    };
    let text = choose(facts).unwrap_err().to_string();
    assert!(text.contains("nothing else was looked at, because LBHA_EBPF_TOOLCHAIN=stable"));
}

#[test]
fn a_short_toolchain_name_stands_for_the_one_with_the_host_behind_it() {
    assert!(is_toolchain("nightly-x86_64-unknown-linux-gnu", "nightly"));
    assert!(is_toolchain("nightly-2026-05-19-x86_64-unknown-linux-gnu", PINNED_NIGHTLY));
    assert!(is_toolchain("mine", "mine"));
    assert!(!is_toolchain("nightly-2026-05-19-x86_64-unknown-linux-gnu", "nightly"));
    assert!(!is_toolchain("stable-x86_64-unknown-linux-gnu", "nightly"));
}

fn rustup(name: &str, has_sources: bool, version: Option<Version>) -> Found {
    let prefix = Path::new("/toolchains").join(name);
    Found { rust: Rust::at(Origin::Rustup(name.into()), prefix), has_sources, version }
}

fn packages(version: Option<Version>) -> Found {
    Found { rust: Rust::at(Origin::Packages, "/usr".into()), has_sources: true, version }
}

fn rustc(release: &str, llvm: &str) -> Option<Version> {
    Some(Version { release: release.into(), llvm: llvm.into() })
}

fn linker(directory: &str, version: &str) -> Linker {
    let path = Path::new(directory).join("bpf-linker");
    Linker { path, version: version.into(), changed: None }
}
