//! Tests of loading as a whole: a text and flags in, a configuration or exact messages out.
#![allow(dead_code)]
use std::path::Path;

use super::{Loaded, Overrides, load};

#[cfg(any())]
mod probe;

const GOOD: &str = r#"[interfaces]
public = "ens14f0"
private = "ens14f1"

[[service]]
name = "www"
vip = "147.75.78.116"
port = 80
pool = "web"

[[pool]]
name = "web"
servers = [
  { name = "web1", address = "192.168.1.10:80" },
  { name = "web2", address = "192.168.1.11:80" },
]
"#;

fn good(edits: &[(&str, &str)]) -> String {
    let mut text = GOOD.to_owned();
    for (old, new) in edits {
        assert_eq!(text.matches(old).count(), 1, "{old:?} must occur once");
        text = text.replacen(old, new, 1);
    }
    text
}

fn from_text(text: &str) -> Loaded {
    load(Some((Path::new("lbha.toml"), text)), &Overrides::default())
}

fn rendered(text: &str) -> String {
    from_text(text).report.render(false)
}
