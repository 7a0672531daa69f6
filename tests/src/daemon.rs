//! Runs the real `lbha` in a namespace, with directories and a bpffs of its own.

use std::{
    env,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::{
    http::{self, Response},
    netns::Netns,
    proc::Proc,
    scratch::ScratchDir,
    topology::Topology,
    wait::{wait_for, wait_until},
};

/// The configuration of the guide's load balancer, without its second host.
pub const GUIDE_CONFIG: &str = r#"[interfaces]
public  = "ens14f0"
private = "ens14f1"

[[service]]
name = "www"
vip  = "147.75.78.116"
port = 80
pool = "nginx_pool"

[[pool]]
name = "nginx_pool"
servers = [
  { name = "web1", address = "192.168.1.10:80" },
  { name = "web2", address = "192.168.1.11:80" },
]
"#;

/// [`GUIDE_CONFIG`] with more lines for its service, and more tables.
pub fn guide_config(service: &str, tables: &str) -> String {
    let pool = "pool = \"nginx_pool\"\n";
    GUIDE_CONFIG.replacen(pool, &format!("{pool}{service}\n"), 1) + "\n" + tables
}

/// The binary under test: `LBHA_BIN`.
pub fn binary() -> Result<PathBuf> {
    let path = env::var_os("LBHA_BIN").context("LBHA_BIN is not set")?;
    let path = PathBuf::from(path);
    ensure!(path.is_file(), "LBHA_BIN: {} is not a file", path.display());
    Ok(path)
}

/// A daemon. It ends on drop; its directories and pins go with the value, not with the process.
#[derive(Debug)]
pub struct Lbha {
    binary: PathBuf,
    namespace: Netns,
    extra_args: Vec<String>,
    /// None between an end and the next start.
    process: Option<Proc>,
    bpffs: PathBuf,
    // After the process: fields drop in order.
    dir: ScratchDir,
}

impl Lbha {
    /// Starts the daemon in the topology's lb namespace and waits until it is ready and has found all servers.
    pub fn start(topology: &Topology, config: &str) -> Result<Self> {
        let daemon = Self::start_in(&topology.lb, config, &[])?;
        daemon.wait_usable(READY_LIMIT).with_context(|| daemon.logs())?;
        Ok(daemon)
    }

    /// [`Lbha::start`] in any namespace, with more arguments for `lbha run`.
    pub fn start_in(namespace: &Netns, config: &str, extra_args: &[&str]) -> Result<Self> {
        let mut daemon = Self::prepare(namespace, config, extra_args)?;
        daemon.launch()?;
        daemon.wait_ready(READY_LIMIT)?;
        Ok(daemon)
    }

    /// Everything but the process, for tests of a start that is to fail.
    pub fn prepare(namespace: &Netns, config: &str, extra_args: &[&str]) -> Result<Self> {
        let dir = ScratchDir::new("daemon")?;
        fs::create_dir(dir.path().join("run"))?;
        let bpffs = dir.mount_bpffs()?;
        let daemon = Self {
            binary: binary()?,
            namespace: namespace.clone(),
            extra_args: extra_args.iter().map(ToString::to_string).collect(),
            process: None,
            bpffs,
            dir,
        };
        daemon.write_config(config)?;
        Ok(daemon)
    }

    /// Starts the process, without waiting for it.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(!self.is_running(), "the daemon runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = self.namespace.command(&self.binary)?;
        command.arg("run").arg("--config").arg(self.config_path());
        command.arg("--runtime-dir").arg(self.runtime_dir());
        command.arg("--bpffs").arg(&self.bpffs).args(["--log-format", "json"]);
        command.args(&self.extra_args).stdout(log.try_clone()?).stderr(log);
        self.process = Some(self.namespace.spawn(command)?);
        Ok(())
    }

    /// Waits until `GET /readyz` says 200; a daemon that ends meanwhile is an error at once.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        let ready = wait_for(limit, "for the daemon to be ready", || {
            if !self.is_running() {
                return Some(false);
            }
            let response = self.request("GET", "/readyz", &[]).ok()?;
            (response.status == 200).then_some(true)
        });
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the daemon ended\n{}", self.logs()),
            Err(error) => bail!("{error:#}\n{}", self.logs()),
        }
    }

    /// Waits until every server can take connections. A daemon is ready before its neighbours have answered.
    pub fn wait_usable(&self, limit: Duration) -> Result<()> {
        wait_until(limit, "all servers are usable", || {
            self.servers().is_ok_and(|servers| servers.iter().all(|s| s.state == "usable"))
        })
    }

    /// SIGTERM; gives the exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let process = self.process.take().context("the daemon does not run")?;
        process.signal(Signal::SIGTERM)?;
        process.wait(STOP_LIMIT).with_context(|| self.logs())
    }

    /// The exit status of a daemon that is to end by itself.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let process = self.process.take().context("the daemon was not started")?;
        process.wait(STOP_LIMIT).with_context(|| self.logs())
    }

    /// SIGKILL: what a crash looks like.
    pub fn kill9(&mut self) -> Result<()> {
        let process = self.process.take().context("the daemon does not run")?;
        process.kill9()?;
        Ok(())
    }

    /// Ends the daemon if it runs, and starts it again with the same directories and pins.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            self.stop()?;
        }
        self.launch()?;
        self.wait_ready(READY_LIMIT)
    }

    pub fn process(&self) -> Option<&Proc> {
        self.process.as_ref()
    }

    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Proc::is_running)
    }

    /// Writes the file that the next start or reload reads.
    pub fn write_config(&self, config: &str) -> Result<()> {
        fs::write(self.config_path(), config).context("write the configuration")
    }

    /// One request to the admin socket.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<Response> {
        http::unix_request(&self.runtime_dir().join("admin.sock"), method, path, body)
    }

    /// `GET path`, which has to be JSON.
    pub fn api(&self, path: &str) -> Result<serde_json::Value> {
        let response = self.request("GET", path, &[])?;
        ensure!(response.status == 200, "GET {path}: {}: {}", response.status, response.text());
        serde_json::from_slice(&response.body).with_context(|| format!("GET {path}"))
    }

    /// `lbha show VERB -o json`
    pub fn show(&self, verb: &str) -> Result<serde_json::Value> {
        let text = self.cli(&["show", verb, "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("show {verb}: {text}"))
    }

    /// Runs a client verb against this daemon and gives its stdout.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let program = self.binary.to_str().context("LBHA_BIN is not UTF-8")?;
        let runtime_dir = self.runtime_dir();
        let runtime = ["--runtime-dir".as_ref(), runtime_dir.as_os_str()];
        self.namespace.exec(program, args.iter().map(AsRef::as_ref).chain(runtime))
    }

    /// All that the daemon wrote since the first start.
    pub fn logs(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("lbha.toml")
    }

    pub fn runtime_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// What is pinned. The kernel has files of its own on a bpffs (`maps.debug`, `progs.debug`).
    pub fn pinned(&self) -> Result<Vec<String>> {
        let names = fs::read_dir(&self.bpffs).context("read the bpffs")?;
        let names = names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        Ok(names.into_iter().filter(|name| !name.ends_with(".debug")).collect())
    }

    /// The bpffs that the pins are on.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Where [`Lbha::logs`] are read from.
    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("lbha.log")
    }
}

impl Drop for Lbha {
    fn drop(&mut self) {
        if thread::panicking() {
            let logs = self.logs();
            let lines: Vec<_> = logs.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("the end of the daemon's log:\n{}", tail.join("\n"));
            if let Ok(counters) = self.counters() {
                eprintln!("its counters: {counters:?}");
            }
        }
    }
}

const READY_LIMIT: Duration = Duration::from_secs(15);
const STOP_LIMIT: Duration = Duration::from_secs(15);
