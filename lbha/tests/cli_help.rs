//! The binary without a daemon: help, usage errors, completions, version.

use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lbha")).args(arguments.split_whitespace()).output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn every_verb_has_help_with_examples_and_exit_codes() {
    let output = run("--help");
    let text = stdout(&output);
    for verb in ["run", "check", "detach", "show", "completions", "version"] {
        assert!(text.contains(&format!("\n  {verb} ")), "{text}");
        let help = run(&format!("{verb} --help"));
        let help = stdout(&help);
        assert!(help.contains("\nExamples:\n"), "{help}");
        assert!(help.contains("\n  3  the daemon cannot be reached\n"), "{help}");
        stdout(&run(&format!("{verb} -h")));
        stdout(&run(&format!("help {verb}")));
    }
    for noun in ["status", "services", "servers", "flows", "nat", "drops"] {
        let help = run(&format!("show {noun} --help"));
        assert!(stdout(&help).contains("--watch"), "{noun}");
    }
}

#[test]
fn usage_errors_exit_with_1() {
    for arguments in [
        "",
        "frobnicate",
        "show",
        "show nothing",
        "show services --watch=never",
        "show flows --client nobody",
        "run --attach offload",
        "completions cmd",
        "check --output yaml",
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments}: {output:?}");
        assert!(!output.stderr.is_empty(), "{arguments}");
    }
}

#[test]
fn flags_that_make_no_configuration_exit_with_2_and_say_what_is_wrong() {
    let output = run("run --vip 147.75.78.116");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "error: without a configuration file, --iface and --server are missing
 |
 = help: for example: --iface eth0 --vip 203.0.113.10:80 --server 192.168.1.10:80

error: --vip 147.75.78.116: a VIP needs its port
 |
 = help: write --vip 147.75.78.116:80

command line: 2 errors
"
    );
}

#[test]
fn check_says_what_there_is_and_json_has_all_of_it() {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/gateway.toml");
    let text = "[interfaces]\npublic = \"eth0\"\n[[masquerade]]\nsource = \"fd00:1::/64\"\n";
    std::fs::write(path, text).unwrap();
    let output = run(&format!("check -c {path}"));
    assert_eq!(stdout(&output), format!("{path}: valid: 1 masquerade\n"));

    let more = "[[service]]\nname = \"www\"\nvip = \"2001:db8::1\"\nport = 80\npool = \"web\"\n\
                [[pool]]\nname = \"web\"\n\
                servers = [{ name = \"a\", address = \"fd00:1::1\" }, { name = \"b\", address = \"fd00:1::2\" }]\n\
                [[forward]]\naddress = \"[2001:db8::1]:22\"\nto = \"[fd00:1::1]:22\"\n";
    std::fs::write(path, format!("{text}{more}")).unwrap();
    let output = run(&format!("check -c {path}"));
    let summary = "1 service, 2 servers, 1 masquerade, 1 forward";
    assert_eq!(stdout(&output), format!("{path}: valid: {summary}\n"));
    let json: Value =
        serde_json::from_str(stdout(&run(&format!("check -o json -c {path}")))).unwrap();
    assert_eq!(json["valid"], true);
    assert_eq!(json["config"]["masquerades"][0]["ports"], "1024-32767");
    assert_eq!(json["config"]["forwards"][0]["to"], "[fd00:1::1]:22");
    assert_eq!(json["config"]["services"][0]["vip"], "2001:db8::1");

    std::fs::write(path, "[interfaces]\npublic = \"eth0\"\n").unwrap();
    let output = run(&format!("check -o json -c {path}"));
    assert_eq!(output.status.code(), Some(2));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["valid"], &json["config"]), (&false.into(), &Value::Null));
}

#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&format!("completions {shell}"));
        let script = stdout(&output);
        assert!(script.contains("services") && script.contains("masquerade"), "{shell}");
    }
}

#[test]
fn the_version_is_for_people_and_for_programs() {
    let output = run("version");
    let version = env!("CARGO_PKG_VERSION");
    assert!(stdout(&output).starts_with(&format!("lbha {version} (abi ")));
    let output = run("version -o json");
    let json: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(json["version"], version);
    assert_eq!(json["abi"], lbha_common::ABI_VERSION);
    assert!(json["target"].as_str().unwrap().contains("linux"));
    assert_eq!(stdout(&run("--version")), format!("lbha {version}\n"));
}
