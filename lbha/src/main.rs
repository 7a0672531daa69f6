fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let arg = |n: &str| args.iter().position(|a| a == n).map(|i| args[i + 1].clone());
    lbha::daemon::init_logging(lbha::daemon::LogFormat::Text, "info")?;
    let o = lbha::config::Overrides {
        runtime_dir: arg("--runtime-dir").map(Into::into),
        ..Default::default()
    };
    let file = arg("--config").unwrap();
    let l = lbha::config::load_file(file.as_ref(), &o);
    eprintln!("{}", l.report.render(false));
    lbha::daemon::run(lbha::daemon::Options {
        config: l.config.unwrap(),
        config_file: Some(file.into()),
        bpffs: arg("--bpffs").unwrap().into(),
        keep_datapath: false,
        bpf_log: 0,
    })
}
